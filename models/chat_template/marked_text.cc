#include "models/chat_template/marked_text.h"

#include <algorithm>

namespace pbserve::models::jinja {

MarkedText MarkedText::content(std::string bytes) {
  MarkedText text(std::move(bytes));
  text.mark({0, text.size()});
  return text;
}

void MarkedText::mark(TextSpan span) {
  if (span.begin == span.end) return;
  if (!content_.empty() && content_.back().end == span.begin) {
    content_.back().end = span.end;
  } else {
    content_.push_back(span);
  }
}

void MarkedText::append(const MarkedText& text, std::string_view part) {
  if (part.empty()) return;
  const auto first = static_cast<size_t>(part.data() - text.bytes_.data());
  const size_t last = first + part.size();
  const size_t offset = bytes_.size();
  bytes_.append(part);
  auto span = std::upper_bound(text.content_.begin(), text.content_.end(), first,
                               [](size_t at, const TextSpan& other) { return at < other.end; });
  for (; span != text.content_.end() && span->begin < last; ++span) {
    mark({std::max(span->begin, first) - first + offset,
          std::min(span->end, last) - first + offset});
  }
}

void MarkedText::append_made_of(const MarkedText& origin, std::string_view bytes) {
  const size_t begin = bytes_.size();
  bytes_.append(bytes);
  if (!origin.content_.empty()) mark({begin, bytes_.size()});
}

MarkedText MarkedText::cut(std::string_view part) const {
  MarkedText text;
  text.append(*this, part);
  return text;
}

}  // namespace pbserve::models::jinja
