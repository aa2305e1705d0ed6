#include "models/chat_template/parser.h"

#include <initializer_list>

#include "models/chat_template/expression_parser.h"
#include "models/chat_template/token_stream.h"

namespace pbserve::models::jinja {
namespace {

using Conditionals = ExpressionParser::Conditionals;

class TemplateParser {
 public:
  explicit TemplateParser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)), expressions_(tokens_) {}

  absl::StatusOr<Block> parse() {
    ASSIGN_OR_RETURN(Block block, parse_block({}));
    RETURN_IF_ERROR(expressions_.check_called_names());
    return block;
  }

 private:
  using EndNames = std::initializer_list<std::string_view>;

  // What surrounds a statement: restored when the surrounding block ends.
  struct Surroundings {
    bool in_loop = false;  // break and continue have a loop to act on
    bool at_root = true;   // in no scope but the template's own
  };

  // Up to a tag whose name is in `ends`, which is left to the caller; without `ends` up to the
  // template's end.
  absl::StatusOr<Block> parse_block(EndNames ends) {
    const auto nesting = expressions_.nest();
    RETURN_IF_ERROR(expressions_.check_nesting());
    const int line = tokens_.line();
    Block block;
    while (!tokens_.at(TokenKind::kEnd)) {
      const Token& token = tokens_.next();
      if (token.kind == TokenKind::kText) {
        block.push_back({token.line, TextStatement{token.text}});
      } else if (token.kind == TokenKind::kOutputBegin) {
        ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.parse_tuple(Conditionals::kAllowed));
        RETURN_IF_ERROR(tokens_.expect(TokenKind::kOutputEnd, "}}"));
        block.push_back({token.line, OutputStatement{std::move(value)}});
      } else {
        for (const std::string_view end : ends) {
          if (tokens_.at_name(end)) return block;
        }
        ASSIGN_OR_RETURN(Statement::Node node, parse_tag());
        RETURN_IF_ERROR(expect_tag_end());
        block.push_back({token.line, std::move(node)});
      }
    }
    if (ends.size() == 0) return block;
    return syntax_error(line, "the block has no " + std::string(*(ends.end() - 1)));
  }

  absl::Status expect_tag_end() { return tokens_.expect(TokenKind::kTagEnd, "%}"); }

  // Reads up to the "%}" of the last tag of the statement.
  absl::StatusOr<Statement::Node> parse_tag() {
    const int line = tokens_.line();
    ASSIGN_OR_RETURN(const std::string name, tokens_.expect_any_name());
    if (name == "if") return parse_if();
    if (name == "for") return parse_for();
    if (name == "set") return parse_set();
    if (name == "macro") return parse_macro(line);
    if (name == "generation") return parse_generation();
    if (name == "break" || name == "continue") {
      if (!surroundings_.in_loop) return syntax_error(line, name + " outside of a loop");
      return name == "break" ? Statement::Node(BreakStatement{})
                             : Statement::Node(ContinueStatement{});
    }
    if (name.starts_with("end") || name == "else" || name == "elif") {
      return syntax_error(line, "unexpected tag '" + name + "'");
    }
    return unsupported(line, "tag '" + name + "'");
  }

  absl::StatusOr<Statement::Node> parse_if() {
    IfStatement statement;
    do {
      ASSIGN_OR_RETURN(ExpressionPtr condition, expressions_.parse_tuple(Conditionals::kRefused));
      RETURN_IF_ERROR(expect_tag_end());
      ASSIGN_OR_RETURN(Block body, parse_block({"elif", "else", "endif"}));
      statement.branches.emplace_back(std::move(condition), std::move(body));
    } while (tokens_.skip_name("elif"));
    if (tokens_.skip_name("else")) {
      RETURN_IF_ERROR(expect_tag_end());
      ASSIGN_OR_RETURN(statement.otherwise, parse_block({"endif"}));
    }
    RETURN_IF_ERROR(tokens_.expect_name("endif"));
    return statement;
  }

  absl::StatusOr<Statement::Node> parse_for() {
    ForStatement statement;
    ASSIGN_OR_RETURN(statement.target, parse_target());
    RETURN_IF_ERROR(tokens_.expect_name("in"));
    ASSIGN_OR_RETURN(statement.items, expressions_.parse_tuple(Conditionals::kRefused));
    if (tokens_.skip_name("if")) {
      ASSIGN_OR_RETURN(statement.condition, expressions_.parse_expression());
    }
    if (tokens_.at_name("recursive")) return unsupported(tokens_.line(), "recursive loops");
    RETURN_IF_ERROR(expect_tag_end());

    const Surroundings outer = surroundings_;
    surroundings_ = {.in_loop = true, .at_root = false};
    ASSIGN_OR_RETURN(statement.body, parse_block({"else", "endfor"}));
    surroundings_.in_loop = outer.in_loop;
    if (tokens_.skip_name("else")) {
      RETURN_IF_ERROR(expect_tag_end());
      ASSIGN_OR_RETURN(statement.otherwise, parse_block({"endfor"}));
    }
    surroundings_ = outer;
    RETURN_IF_ERROR(tokens_.expect_name("endfor"));
    return statement;
  }

  absl::StatusOr<Statement::Node> parse_set() {
    ASSIGN_OR_RETURN(Target target, parse_target());
    if (tokens_.skip_operator("=")) {
      ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.parse_tuple(Conditionals::kAllowed));
      return SetStatement{std::move(target), std::move(value)};
    }
    SetBlockStatement statement{.target = std::move(target), .body = {}, .filters = {}};
    while (tokens_.at_operator("|")) {
      ASSIGN_OR_RETURN(FilterCall filter, expressions_.parse_filter());
      statement.filters.push_back(std::move(filter));
    }
    RETURN_IF_ERROR(expect_tag_end());
    const Surroundings outer = surroundings_;
    surroundings_.at_root = false;
    ASSIGN_OR_RETURN(statement.body, parse_block({"endset"}));
    surroundings_ = outer;
    RETURN_IF_ERROR(tokens_.expect_name("endset"));
    return statement;
  }

  // At the root alone: its scope outlives every call, so a macro needs no copy of its scope.
  absl::StatusOr<Statement::Node> parse_macro(int line) {
    if (!surroundings_.at_root) return unsupported(line, "a macro inside of another block");
    MacroStatement macro;
    ASSIGN_OR_RETURN(macro.name, tokens_.expect_any_name());
    expressions_.declare(macro.name);
    const Surroundings outer = surroundings_;
    surroundings_ = {.in_loop = false, .at_root = false};
    expressions_.set_inside_macro(true);
    RETURN_IF_ERROR(tokens_.expect_operator("("));
    while (!tokens_.at_operator(")")) {
      ASSIGN_OR_RETURN(std::string name, tokens_.expect_any_name());
      expressions_.declare(name);
      ExpressionPtr fallback;
      if (tokens_.skip_operator("=")) {
        ASSIGN_OR_RETURN(fallback, expressions_.parse_expression());
      } else if (!macro.parameters.empty() && macro.parameters.back().second) {
        return syntax_error(line, "parameter " + name + " without default follows one with");
      }
      macro.parameters.emplace_back(std::move(name), std::move(fallback));
      if (!tokens_.skip_operator(",")) break;
    }
    RETURN_IF_ERROR(tokens_.expect_operator(")"));
    RETURN_IF_ERROR(expect_tag_end());
    ASSIGN_OR_RETURN(macro.body, parse_block({"endmacro"}));
    expressions_.set_inside_macro(false);
    surroundings_ = outer;
    RETURN_IF_ERROR(tokens_.expect_name("endmacro"));
    return macro;
  }

  // transformers marks with this tag what the assistant wrote; it prints its body.
  absl::StatusOr<Statement::Node> parse_generation() {
    RETURN_IF_ERROR(expect_tag_end());
    const Surroundings outer = surroundings_;
    surroundings_ = {.in_loop = false, .at_root = false};
    ASSIGN_OR_RETURN(Block body, parse_block({"endgeneration"}));
    surroundings_ = outer;
    RETURN_IF_ERROR(tokens_.expect_name("endgeneration"));
    return ScopeStatement{std::move(body)};
  }

  // One target, or several with commas.
  absl::StatusOr<Target> parse_target() {
    ASSIGN_OR_RETURN(Target target, parse_single_target());
    if (!tokens_.at_operator(",")) return target;
    Target tuple;
    tuple.parts.push_back(std::move(target));
    while (tokens_.skip_operator(",")) {
      if (!tokens_.at(TokenKind::kName) && !tokens_.at_operator("(")) break;
      if (tokens_.at_name("in")) break;
      ASSIGN_OR_RETURN(Target part, parse_single_target());
      tuple.parts.push_back(std::move(part));
    }
    return tuple;
  }

  absl::StatusOr<Target> parse_single_target() {
    const auto nesting = expressions_.nest();
    RETURN_IF_ERROR(expressions_.check_nesting());
    if (tokens_.skip_operator("(")) {
      ASSIGN_OR_RETURN(Target tuple, parse_target());
      RETURN_IF_ERROR(tokens_.expect_operator(")"));
      return tuple;
    }
    const int line = tokens_.line();
    Target target;
    ASSIGN_OR_RETURN(target.name, tokens_.expect_any_name());
    static constexpr std::string_view kConstants[] = {"true",  "True", "false",
                                                      "False", "none", "None"};
    for (const std::string_view constant : kConstants) {
      if (target.name == constant) return syntax_error(line, "assignment to " + target.name);
    }
    if (tokens_.skip_operator(".")) {
      ASSIGN_OR_RETURN(target.member, tokens_.expect_any_name());
    } else {
      expressions_.declare(target.name);
    }
    return target;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  Surroundings surroundings_;
};

}  // namespace

absl::StatusOr<Block> parse_template(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize(source));
  return TemplateParser(std::move(tokens)).parse();
}

}  // namespace pbserve::models::jinja
