#include "models/chat_template/value_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "models/chat_template/text.h"

namespace pbserve::models::jinja {
namespace {

void append_hex(char prefix, unsigned code, int digits, std::string* out) {
  char text[12];
  std::snprintf(text, sizeof(text), "\\%c%0*x", prefix, digits, code);
  out->append(text);
}

void write_string_repr(const std::string& text, std::string* out) {
  const bool double_quoted =
      text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char32_t quote = double_quoted ? U'"' : U'\'';
  append_utf8(quote, out);
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    if (c == quote || c == U'\\') {
      out->push_back('\\');
      append_utf8(c, out);
    } else if (c == U'\n') {
      out->append("\\n");
    } else if (c == U'\r') {
      out->append("\\r");
    } else if (c == U'\t') {
      out->append("\\t");
    } else if (is_printable(c)) {
      append_utf8(c, out);
    } else {
      append_hex(c < 0x100     ? 'x'
                 : c < 0x10000 ? 'u'
                               : 'U',
                 c,
                 c < 0x100     ? 2
                 : c < 0x10000 ? 4
                               : 8,
                 out);
    }
  }
  append_utf8(quote, out);
}

void write_string_json(const std::string& text, bool ensure_ascii, std::string* out) {
  static constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
  static constexpr std::string_view kLetters = "\"\\nrtfb";
  out->push_back('"');
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, &pos);
    const size_t escape = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (escape != std::string_view::npos) {
      out->push_back('\\');
      out->push_back(kLetters[escape]);
    } else if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
      append_hex('u', c, 4, out);
    } else if (ensure_ascii && c >= 0x10000) {
      append_hex('u', 0xD800 + ((c - 0x10000) >> 10), 4, out);
      append_hex('u', 0xDC00 + ((c - 0x10000) & 0x3FF), 4, out);
    } else {
      append_utf8(c, out);
    }
  }
  out->push_back('"');
}

// True, 3 or 2.5: the same in Python and, but for the letter case of words, in JSON.
bool write_number(const Value& value, std::string* out) {
  if (const auto* integer = value.get_if<int64_t>()) {
    out->append(std::to_string(*integer));
  } else if (const auto* number = value.get_if<double>()) {
    out->append(float_repr(*number));
  } else {
    return false;
  }
  return true;
}

absl::Status write_repr(Runtime& runtime, const Value& value, std::string* out);

absl::Status write_sequence_repr(Runtime& runtime, const Sequence& sequence, std::string* out) {
  const SequenceKind kind = sequence.kind();
  const bool tuple = kind == SequenceKind::kTuple;
  if (kind == SequenceKind::kIterator || kind == SequenceKind::kRange) {
    return render_error("a generator or range cannot be printed; use the filter list or join");
  }
  const bool view = !tuple && kind != SequenceKind::kList;
  if (view) {
    out->append(kind == SequenceKind::kKeys     ? "dict_keys("
                : kind == SequenceKind::kValues ? "dict_values("
                                                : "dict_items(");
  }
  out->push_back(tuple ? '(' : '[');
  for (size_t i = 0; i < sequence.items().size(); ++i) {
    if (i > 0) out->append(", ");
    RETURN_IF_ERROR(write_repr(runtime, sequence.items()[i], out));
  }
  out->append(tuple ? (sequence.items().size() == 1 ? ",)" : ")") : "]");
  if (view) out->push_back(')');
  return absl::OkStatus();
}

absl::Status write_dict_repr(Runtime& runtime, const Dict& dict, std::string* out) {
  out->push_back('{');
  bool first = true;
  for (const auto& [key, value] : dict.items()) {
    if (!first) out->append(", ");
    first = false;
    RETURN_IF_ERROR(write_repr(runtime, key, out));
    out->append(": ");
    RETURN_IF_ERROR(write_repr(runtime, value, out));
  }
  out->push_back('}');
  return absl::OkStatus();
}

absl::Status write_repr(Runtime& runtime, const Value& value, std::string* out) {
  RETURN_IF_ERROR(runtime.charge_items(1));
  if (const std::string* text = value.string()) {
    RETURN_IF_ERROR(runtime.charge(text->size()));
    write_string_repr(*text, out);
    return absl::OkStatus();
  }
  if (const Sequence* sequence = value.sequence()) {
    return write_sequence_repr(runtime, *sequence, out);
  }
  if (const Dict* dict = value.dict()) return write_dict_repr(runtime, *dict, out);
  if (write_number(value, out)) return absl::OkStatus();
  if (const bool* flag = value.get_if<bool>()) {
    out->append(*flag ? "True" : "False");
  } else if (value.is_none() || value.is_undefined()) {
    out->append(value.is_none() ? "None" : "Undefined");
  } else {
    return render_error("a ", type_name(value), " cannot be printed");
  }
  return absl::OkStatus();
}

bool has_content(const Value& value) {
  if (const MarkedText* text = value.text()) return !text->content().empty();
  if (const Sequence* sequence = value.sequence()) {
    return std::any_of(sequence->items().begin(), sequence->items().end(), has_content);
  }
  const Dict* dict = value.dict();
  return dict && std::any_of(dict->items().begin(), dict->items().end(), [](const auto& item) {
           return has_content(item.first) || has_content(item.second);
         });
}

MarkedText as_marked(const Value& value, std::string text) {
  return has_content(value) ? MarkedText::content(std::move(text)) : MarkedText(std::move(text));
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style, std::string* out)
      : runtime_(runtime), style_(style), out_(out) {}

  absl::Status write(const Value& value, size_t level) {
    RETURN_IF_ERROR(runtime_.charge_items(1));
    if (const std::string* text = value.string()) {
      RETURN_IF_ERROR(runtime_.charge(text->size()));
      write_string_json(*text, style_.ensure_ascii, out_);
    } else if (const bool* flag = value.get_if<bool>()) {
      out_->append(*flag ? "true" : "false");
    } else if (value.is_none()) {
      out_->append("null");
    } else if (const double* number = value.get_if<double>(); number && !std::isfinite(*number)) {
      out_->append(std::isnan(*number) ? "NaN" : *number < 0 ? "-Infinity" : "Infinity");
    } else if (const Dict* dict = value.dict()) {
      return write_dict(*dict, level);
    } else if (const Sequence* list = value.sequence();
               list &&
               (list->kind() == SequenceKind::kList || list->kind() == SequenceKind::kTuple)) {
      return write_list(*list, level);
    } else if (!write_number(value, out_)) {
      return render_error("tojson: a value of type ", type_name(value), " has no JSON form");
    }
    return absl::OkStatus();
  }

 private:
  absl::Status write_list(const Sequence& list, size_t level) {
    out_->push_back('[');
    for (size_t i = 0; i < list.items().size(); ++i) {
      RETURN_IF_ERROR(begin_item(i, level + 1));
      RETURN_IF_ERROR(write(list.items()[i], level + 1));
    }
    return end(list.items().size(), level, ']');
  }

  absl::Status write_dict(const Dict& dict, size_t level) {
    std::vector<const Dict::Item*> items;
    for (const Dict::Item& item : dict.items()) items.push_back(&item);
    if (style_.sort_keys) {
      std::sort(items.begin(), items.end(), [](const Dict::Item* a, const Dict::Item* b) {
        return *a->first.string() < *b->first.string();
      });
    }
    out_->push_back('{');
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(begin_item(i, level + 1));
      RETURN_IF_ERROR(write(items[i]->first, level + 1));
      out_->append(style_.key_separator);
      RETURN_IF_ERROR(write(items[i]->second, level + 1));
    }
    return end(items.size(), level, '}');
  }

  absl::Status begin_item(size_t index, size_t level) {
    if (index > 0) out_->append(style_.item_separator);
    return break_line(level);
  }

  absl::Status end(size_t num_items, size_t level, char bracket) {
    if (num_items > 0) RETURN_IF_ERROR(break_line(level));
    out_->push_back(bracket);
    return absl::OkStatus();
  }

  absl::Status break_line(size_t level) {
    if (!style_.indent) return absl::OkStatus();
    RETURN_IF_ERROR(runtime_.charge(1 + level * style_.indent->size()));
    out_->push_back('\n');
    for (size_t i = 0; i < level; ++i) out_->append(*style_.indent);
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string* out_;
};

}  // namespace

// Python writes the shortest digits that read back equal, with an exponent below 1e-4 and from
// 1e16 on.
std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char text[32];
  char* end = std::to_chars(text, text + sizeof(text), number, std::chars_format::scientific).ptr;
  const std::string_view scientific(text, static_cast<size_t>(end - text));
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(std::string(scientific.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(scientific);
  end = std::to_chars(text, text + sizeof(text), number, std::chars_format::fixed).ptr;
  std::string fixed(text, end);
  if (fixed.find('.') == std::string::npos) fixed.append(".0");
  return fixed;
}

absl::Status write_text(Runtime& runtime, const Value& value, MarkedText* out) {
  if (value.is_undefined()) return absl::OkStatus();
  if (const MarkedText* text = value.text()) {
    RETURN_IF_ERROR(runtime.charge(text->size()));
    out->append(*text);
    return absl::OkStatus();
  }
  std::string repr;
  RETURN_IF_ERROR(write_repr(runtime, value, &repr));
  out->append(as_marked(value, std::move(repr)));
  return absl::OkStatus();
}

absl::StatusOr<MarkedText> to_text(Runtime& runtime, const Value& value) {
  MarkedText text;
  RETURN_IF_ERROR(write_text(runtime, value, &text));
  return text;
}

absl::StatusOr<MarkedText> to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  std::string json;
  JsonWriter writer(runtime, style, &json);
  RETURN_IF_ERROR(writer.write(value, 0));
  return as_marked(value, std::move(json));
}

}  // namespace pbserve::models::jinja
