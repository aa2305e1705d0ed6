#include "models/tokenizer/regex_dialect.h"

#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "models/message.h"
#include "models/tokenizer/unicode_additions.h"

namespace pbserve::models {
namespace {

// White_Space. PCRE2's own \s has U+180E too, which left that property in Unicode 6.3.
constexpr std::string_view kSpaces = R"(\t-\r \x{85}\p{Z})";

class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  absl::StatusOr<std::string> run() {
    while (at_ < source_.size()) RETURN_IF_ERROR(translate_next());
    return std::move(out_);
  }

 private:
  absl::Status translate_next() {
    const char c = source_[at_];
    switch (c) {
      case '\\':
        return escape(/*class_wanted=*/true);
      case '[':
        return character_class();
      case '(':
        return open_group();
      case ')':
        if (!caseless_.empty()) caseless_.pop_back();
        break;
      case '{':
        return counted_repeat();
      default:
        break;
    }
    out_.push_back(c);
    ++at_;
    return absl::OkStatus();
  }

  absl::Status open_group() {
    for (std::string_view head : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"}) {
      if (!source_.substr(at_).starts_with(head)) continue;
      caseless_.push_back(head == "(?i:" || is_caseless());
      copy(head.size());
      return absl::OkStatus();
    }
    const std::string_view rest = source_.substr(at_ + 1);
    if (rest.starts_with('?') || rest.starts_with('*')) return refuse(2, "this group");
    caseless_.push_back(is_caseless());
    copy(1);
    return absl::OkStatus();
  }

  // {n}, {n,} and {n,m}. Oniguruma reads {,n}, and a + or ? after the brace, in its own way.
  absl::Status counted_repeat() {
    size_t end = at_ + 1;
    while (end < source_.size() && (absl::ascii_isdigit(uchar(end)) || source_[end] == ',')) ++end;
    const bool closed = end < source_.size() && source_[end] == '}';
    const bool starts_with_digit = absl::ascii_isdigit(uchar(at_ + 1));
    const bool suffixed =
        end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '?');
    if (!closed || !starts_with_digit || suffixed) return refuse(end + 2 - at_, "this repeat");
    copy(end + 1 - at_);
    return absl::OkStatus();
  }

  absl::Status character_class() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') return refuse(1, "']' as the first member of a class");
    while (at_ < source_.size() && source_[at_] != ']') {
      if (source_[at_] == '[') return refuse(2, "a class inside a class");
      if (source_.substr(at_).starts_with("&&")) return refuse(2, "an intersection of classes");
      if (source_[at_] == '\\') {
        RETURN_IF_ERROR(escape(/*class_wanted=*/false));
      } else {
        copy(1);
      }
    }
    if (at_ == source_.size()) return refuse(0, "a class without its ']'");
    copy(1);
    return absl::OkStatus();
  }

  // `class_wanted`: a set of characters must bring its own brackets.
  absl::Status escape(bool class_wanted) {
    const char c = at_ + 1 < source_.size() ? source_[at_ + 1] : '\0';
    const auto put_set = [&](std::string_view members, bool negated, size_t num_read) {
      if (negated && !class_wanted) return refuse(2, "a negated set inside a class");
      out_ += class_wanted ? message(negated ? "[^" : "[", members, "]") : std::string(members);
      at_ += num_read;
      return absl::OkStatus();
    };
    switch (c) {
      case 's':
      case 'S':
        return put_set(kSpaces, c == 'S', 2);
      case 'd':
      case 'D':
        return put_set(property_members("Nd"), c == 'D', 2);
      case 'p':
      case 'P': {
        const size_t end = source_.find('}', at_);
        if (end == std::string_view::npos || source_[at_ + 2] != '{') {
          return refuse(3, "a property without braces");
        }
        const std::string_view name = source_.substr(at_ + 3, end - at_ - 3);
        RETURN_IF_ERROR(check_property(name));
        return put_set(property_members(name), c == 'P', end + 1 - at_);
      }
      case 'x':
        return hex_escape();
      case 'n':
      case 'r':
      case 't':
      case 'f':
        copy(2);
        return absl::OkStatus();
      case 'A':
      case 'z':
        if (!class_wanted) break;
        copy(2);
        return absl::OkStatus();
      default:
        if (!absl::ascii_ispunct(static_cast<unsigned char>(c))) break;
        copy(2);
        return absl::OkStatus();
    }
    return refuse(2, "this escape");
  }

  // \xHH and \x{H...}
  absl::Status hex_escape() {
    size_t end = at_ + 2;
    const bool braced = peek(2) == '{';
    if (braced) ++end;
    const size_t digits = end;
    while (end < source_.size() && absl::ascii_isxdigit(uchar(end)) && (braced || end < at_ + 4)) {
      ++end;
    }
    if (end == digits || (braced ? end == source_.size() || source_[end] != '}' : end != at_ + 4)) {
      return refuse(end - at_, "this escape");
    }
    if (!braced && source_[at_ + 2] > '7') return refuse(4, "a byte that is not ASCII");
    copy(end + (braced ? 1 : 0) - at_);
    return absl::OkStatus();
  }

  absl::Status check_property(std::string_view name) const {
    const bool is_cased = name == "Lu" || name == "Ll" || name == "Lt";
    if (is_cased && is_caseless()) return refuse(0, "\\p{Lu}, \\p{Ll}, \\p{Lt} inside (?i:");
    for (char c : name) {
      if (!absl::ascii_isalpha(static_cast<unsigned char>(c)) && c != '_') {
        return refuse(0, "this property");
      }
    }
    return absl::OkStatus();
  }

  // The members of \p{name} for use inside brackets. ASCII is spelled out although the property
  // has it: PCRE2 looks characters below 256 up in a bitmap when they are listed, and walks its
  // property tables otherwise (English text: 1.5 times as fast).
  static std::string property_members(std::string_view name) {
    // Longer names are scripts; without "sc:" PCRE2 takes the script's extensions too.
    if (name.size() > 2) return message("\\p{sc:", name, "}");
    std::ostringstream members;
    if (name == "L" || name == "Lu") members << "A-Z";
    if (name == "L" || name == "Ll") members << "a-z";
    if (name == "N" || name == "Nd") members << "0-9";
    members << "\\p{" << name << "}" << std::hex;
    for (const UnicodeAddition& added : kUnicodeAdditions) {
      if (!added.category.starts_with(name)) continue;
      members << "\\x{" << added.first << "}-\\x{" << added.last << "}";
    }
    return members.str();
  }

  absl::Status refuse(size_t num_shown, std::string_view what) const {
    return absl::UnimplementedError(message("regex at byte ", at_, ": ", what, " '",
                                            source_.substr(at_, num_shown),
                                            "' is not implemented"));
  }

  void copy(size_t count) {
    out_ += source_.substr(at_, count);
    at_ += count;
  }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  unsigned char uchar(size_t offset) const {
    return offset < source_.size() ? static_cast<unsigned char>(source_[offset]) : 0;
  }
  bool is_caseless() const { return !caseless_.empty() && caseless_.back(); }

  std::string_view source_;
  size_t at_ = 0;
  std::string out_;
  std::vector<bool> caseless_;  // one entry per open group
};

}  // namespace

absl::StatusOr<std::string> translate_regex(std::string_view oniguruma) {
  return Translator(oniguruma).run();
}

}  // namespace pbserve::models
