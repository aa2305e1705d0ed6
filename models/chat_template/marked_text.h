// Text that knows which of its bytes a client wrote. What the template writes may spell control
// tokens, what a client wrote may not, wherever filters and operators have carried it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/text_span.h"

namespace pbserve::models::jinja {

class MarkedText {
 public:
  MarkedText() = default;
  explicit MarkedText(std::string bytes) : bytes_(std::move(bytes)) {}  // all of it the template's
  static MarkedText content(std::string bytes);                         // all of it a client's

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  // What a client wrote: in order, neither empty nor touching.
  const std::vector<TextSpan>& content() const { return content_; }

  void reserve(size_t size) { bytes_.reserve(size); }
  void append(std::string_view bytes) { bytes_.append(bytes); }  // the template's
  void append(const MarkedText& text) { append(text, text.bytes_); }
  // REQUIRES: `part` is a view into text.bytes().
  void append(const MarkedText& text, std::string_view part);
  // Bytes that were made out of all of `origin`: a client's if any of that is.
  void append_made_of(const MarkedText& origin, std::string_view bytes);

  // REQUIRES: `part` is a view into bytes().
  MarkedText cut(std::string_view part) const;
  // Calls visit(part, is_content) for all of the text in order.
  template <class Visit>
  void visit_parts(Visit visit) const;

 private:
  void mark(TextSpan span);  // REQUIRES: at or behind the end of the last one

  std::string bytes_;
  std::vector<TextSpan> content_;
};

template <class Visit>
void MarkedText::visit_parts(Visit visit) const {
  const std::string_view all = bytes_;
  size_t done = 0;
  for (const TextSpan& span : content_) {
    if (done < span.begin) visit(all.substr(done, span.begin - done), false);
    visit(all.substr(span.begin, span.end - span.begin), true);
    done = span.end;
  }
  if (done < all.size()) visit(all.substr(done), false);
}

}  // namespace pbserve::models::jinja
