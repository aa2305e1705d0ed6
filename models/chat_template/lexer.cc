#include "models/chat_template/lexer.h"

#include <algorithm>
#include <array>

#include "models/chat_template/limits.h"
#include "models/chat_template/string_literal.h"
#include "models/chat_template/text.h"

namespace pbserve::models::jinja {
namespace {

constexpr auto kNpos = std::string_view::npos;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::string normalize_newlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text.push_back(source[i]);
    } else {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> run() {
    while (pos_ < source_.size()) RETURN_IF_ERROR(read_text_and_tag());
    emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status read_text_and_tag() {
    size_t tag = pos_;
    do tag = source_.find('{', tag);
    while (tag != kNpos && !is_tag_begin(tag) && ++tag);
    if (tag == kNpos) {
      emit_text(source_.substr(pos_));
      pos_ = source_.size();
      return absl::OkStatus();
    }
    const char kind = source_[tag + 1];
    char sign = at(tag + 2);
    if (sign != '-' && sign != '+') sign = 0;
    emit_text(trim_before(source_.substr(pos_, tag - pos_), sign, kind == '{'));
    move_to(tag + (sign ? 3 : 2));
    if (kind == '#') return skip_comment();
    if (kind == '{') return read_tag(TokenKind::kOutputBegin, TokenKind::kOutputEnd);
    if (const size_t body = raw_body(); body != kNpos) return read_raw(body);
    return read_tag(TokenKind::kTagBegin, TokenKind::kTagEnd);
  }

  bool is_tag_begin(size_t pos) const {
    return at(pos + 1) == '{' || at(pos + 1) == '%' || at(pos + 1) == '#';
  }

  // The text before a tag: "-" takes all white space off its end; without a sign the blanks
  // between the line's start and a tag that prints nothing go.
  std::string_view trim_before(std::string_view text, char sign, bool is_output) const {
    if (sign == '-') return strip(text, Side::kRight);
    if (sign == '+' || is_output) return text;
    const size_t newline = text.rfind('\n');
    if (newline == kNpos && !at_line_start_) return text;
    const size_t line_start = newline == kNpos ? 0 : newline + 1;
    return strip(text.substr(line_start), Side::kLeft).empty() ? text.substr(0, line_start) : text;
  }

  absl::Status skip_comment() {
    const int line = line_;
    const size_t end = source_.find("#}", pos_);
    if (end == kNpos) return syntax_error(line, "the comment has no end");
    const char sign = end > pos_ ? source_[end - 1] : '\0';
    move_to(end + 2);
    trim_after(sign);
    return absl::OkStatus();
  }

  // Behind "{%": where the text of a raw block begins, if this is one.
  size_t raw_body() const {
    const size_t word = skip_spaces(pos_);
    if (source_.substr(word, 3) != "raw") return kNpos;
    const size_t end = skip_spaces(word + 3);
    if (source_.substr(end, 2) == "%}") return end + 2;
    return source_.substr(end, 3) == "-%}" ? skip_spaces(end + 3) : kNpos;
  }

  absl::Status read_raw(size_t body) {
    const int line = line_;
    move_to(body);
    at_line_start_ = source_[pos_ - 1] == '\n';
    for (size_t tag = source_.find("{%", pos_); tag != kNpos; tag = source_.find("{%", tag + 1)) {
      const bool is_signed = at(tag + 2) == '-' || at(tag + 2) == '+';
      const size_t word = skip_spaces(tag + (is_signed ? 3 : 2));
      if (source_.substr(word, 6) != "endraw") continue;
      size_t end = skip_spaces(word + 6);
      const char sign = at(end) == '-' || at(end) == '+' ? at(end++) : '\0';
      if (source_.substr(end, 2) != "%}") continue;
      emit_text(trim_before(source_.substr(pos_, tag - pos_), is_signed ? at(tag + 2) : '\0',
                            /*is_output=*/false));
      move_to(end + 2);
      trim_after(sign);
      return absl::OkStatus();
    }
    return syntax_error(line, "the raw block has no end");
  }

  absl::Status read_tag(TokenKind begin, TokenKind end) {
    const std::string_view closing = end == TokenKind::kTagEnd ? "%}" : "}}";
    const int line = line_;
    emit(begin, "");
    std::string brackets;  // the closing ones that are awaited
    for (;;) {
      move_to(skip_spaces(pos_));
      if (pos_ >= source_.size()) return syntax_error(line, "the tag has no end");
      if (brackets.empty()) {
        const char sign = at(pos_);
        const bool is_signed = sign == '-' || (sign == '+' && end == TokenKind::kTagEnd);
        const size_t close = pos_ + (is_signed ? 1 : 0);
        if (source_.substr(close, 2) == closing) {
          emit(end, "");
          move_to(close + 2);
          if (end == TokenKind::kTagEnd || is_signed) trim_after(sign);
          at_line_start_ = source_[pos_ - 1] == '\n';
          return absl::OkStatus();
        }
      }
      RETURN_IF_ERROR(read_token(&brackets));
    }
  }

  // Behind the end of a tag that prints nothing: one newline goes, all white space after "-".
  void trim_after(char sign) {
    if (sign == '-') {
      move_to(skip_spaces(pos_));
    } else if (sign != '+' && at(pos_) == '\n') {
      move_to(pos_ + 1);
    }
    at_line_start_ = source_[pos_ - 1] == '\n';
  }

  absl::Status read_token(std::string* brackets) {
    const char c = at(pos_);
    if (is_digit(c)) return read_number();
    if (c == '"' || c == '\'') return read_string();
    if (!is_name_char(c)) return read_operator(brackets);
    size_t end = pos_;
    while (is_name_char(at(end))) ++end;
    emit(TokenKind::kName, source_.substr(pos_, end - pos_));
    move_to(end);
    return absl::OkStatus();
  }

  size_t skip_digits(size_t pos) const {
    while (is_digit(at(pos)) || (at(pos) == '_' && is_digit(at(pos + 1)))) ++pos;
    return pos;
  }

  absl::Status read_number() {
    size_t end = skip_digits(pos_);
    TokenKind kind = TokenKind::kInteger;
    // In a.0.1 the dots are those of attributes.
    const bool may_be_float = pos_ == 0 || source_[pos_ - 1] != '.';
    if (may_be_float && at(end) == '.' && is_digit(at(end + 1))) {
      kind = TokenKind::kFloat;
      end = skip_digits(end + 1);
    }
    if (may_be_float && (at(end) == 'e' || at(end) == 'E')) {
      const size_t digits = end + (at(end + 1) == '+' || at(end + 1) == '-' ? 2 : 1);
      if (is_digit(at(digits))) {
        kind = TokenKind::kFloat;
        end = skip_digits(digits);
      }
    }
    std::string text(source_.substr(pos_, end - pos_));
    std::erase(text, '_');
    const bool leading_zero = text[0] == '0' && text.find_first_not_of('0') != kNpos;
    if (is_name_char(at(end)) || (kind == TokenKind::kInteger && leading_zero)) {
      return unsupported(line_, "the number that begins with " + text);
    }
    emit(kind, text);
    move_to(end);
    return absl::OkStatus();
  }

  absl::Status read_string() {
    const char quote = at(pos_);
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return syntax_error(line_, "the string has no end");
    ASSIGN_OR_RETURN(std::string text, unescape(source_.substr(pos_ + 1, end - pos_ - 1), line_));
    emit(TokenKind::kString, text);
    move_to(end + 1);
    return absl::OkStatus();
  }

  absl::Status read_operator(std::string* brackets) {
    static constexpr std::array<std::string_view, 6> kTwoChars = {
        "//", "**", "==", "!=", "<=", ">="};
    const char c = at(pos_);
    const std::string_view two = source_.substr(pos_, 2);
    const bool is_two = std::find(kTwoChars.begin(), kTwoChars.end(), two) != kTwoChars.end();
    if (!is_two && std::string_view("+-*/%~[](){}<>=.:|,;").find(c) == kNpos) {
      size_t end = pos_;
      next_code_point(source_, &end);
      return syntax_error(line_,
                          "unexpected character " + std::string(source_.substr(pos_, end - pos_)));
    }
    if (c == '(' || c == '[' || c == '{') {
      brackets->push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets->empty() || brackets->back() != c) {
        return syntax_error(line_, std::string("unexpected ") + c);
      }
      brackets->pop_back();
    }
    emit(TokenKind::kOperator, is_two ? two : source_.substr(pos_, 1));
    move_to(pos_ + (is_two ? 2 : 1));
    return absl::OkStatus();
  }

  char at(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }

  size_t skip_spaces(size_t pos) const {
    const std::string_view rest = source_.substr(std::min(pos, source_.size()));
    return source_.size() - strip(rest, Side::kLeft).size();
  }

  void move_to(size_t pos) {
    line_ += static_cast<int>(std::count(source_.begin() + pos_, source_.begin() + pos, '\n'));
    pos_ = pos;
  }

  void emit_text(std::string_view text) {
    if (!text.empty()) emit(TokenKind::kText, text);
  }
  void emit(TokenKind kind, std::string_view text) {
    tokens_.push_back({.kind = kind, .text = std::string(text), .line = line_});
  }

  const std::string_view source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;  // what stands before pos_ is a newline, or nothing
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status syntax_error(int line, std::string_view what) {
  return absl::InvalidArgumentError("chat template, line " + std::to_string(line) + ": " +
                                    std::string(what));
}

absl::Status unsupported(int line, std::string_view construct) {
  return absl::UnimplementedError("chat template, line " + std::to_string(line) +
                                  ": not supported: " + std::string(construct));
}

absl::StatusOr<std::vector<Token>> tokenize(std::string_view source) {
  if (source.size() > kTemplateBytesMax) {
    return absl::InvalidArgumentError("the chat template has " + std::to_string(source.size()) +
                                      " bytes; the limit is " + std::to_string(kTemplateBytesMax));
  }
  if (!is_valid_utf8(source)) {
    return absl::InvalidArgumentError("the chat template is not valid UTF-8");
  }
  const std::string text = normalize_newlines(source);
  return Lexer(text).run();
}

}  // namespace pbserve::models::jinja
