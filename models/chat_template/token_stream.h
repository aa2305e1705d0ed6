// A cursor over the tokens of a template, with the questions that both parsers ask.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/chat_template/lexer.h"

namespace pbserve::models::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() {
    const Token& token = peek();
    pos_ += token.kind == TokenKind::kEnd ? 0 : 1;
    return token;
  }
  int line() const { return peek().line; }

  bool at(TokenKind kind) const { return peek().kind == kind; }
  bool at_operator(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == text;
  }
  bool at_name(std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kName && peek(ahead).text == text;
  }

  bool skip_operator(std::string_view text) { return skip_if(at_operator(text)); }
  bool skip_name(std::string_view text) { return skip_if(at_name(text)); }

  absl::Status expect_operator(std::string_view text) {
    return skip_operator(text) ? absl::OkStatus() : unexpected(text);
  }
  absl::Status expect_name(std::string_view text) {
    return skip_name(text) ? absl::OkStatus() : unexpected(text);
  }
  absl::Status expect(TokenKind kind, std::string_view description) {
    return skip_if(at(kind)) ? absl::OkStatus() : unexpected(description);
  }
  absl::StatusOr<std::string> expect_any_name() {
    if (!at(TokenKind::kName)) return unexpected("a name");
    return next().text;
  }

  absl::Status unexpected(std::string_view wanted) const {
    const Token& token = peek();
    const std::string found = token.kind == TokenKind::kEnd         ? "the end of the template"
                              : token.kind == TokenKind::kTagEnd    ? "%}"
                              : token.kind == TokenKind::kOutputEnd ? "}}"
                                                                    : "'" + token.text + "'";
    return syntax_error(token.line, "expected " + std::string(wanted) + ", found " + found);
  }

 private:
  bool skip_if(bool matches) {
    if (matches) next();
    return matches;
  }

  std::vector<Token> tokens_;  // the last one is kEnd
  size_t pos_ = 0;
};

}  // namespace pbserve::models::jinja
