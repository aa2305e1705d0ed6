// What the subset does not have is refused when a template is loaded, by name and line.

#include <gtest/gtest.h>

#include "models/chat_template/parser.h"
#include "tests/models/chat_template/render_text.h"

namespace pbserve::models::jinja {
namespace {

struct Refused {
  std::string source;
  std::string named;  // what the message must say
};

void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.source; }

class RefusedConstructs : public testing::TestWithParam<Refused> {};

// In a branch that no rendering would reach, and on the third line.
TEST_P(RefusedConstructs, NamesTheConstructAndItsLine) {
  const std::string source = "{% if false %}\n\n" + GetParam().source + "\n{% endif %}";
  const absl::Status status = parse_template(source).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(status.message(), "chat template, line 3: not supported: " + GetParam().named);
}

INSTANTIATE_TEST_SUITE_P(
    , RefusedConstructs,
    testing::Values(
        Refused{"{% include 'x' %}", "tag 'include'"}, Refused{"{% block x %}", "tag 'block'"},
        Refused{"{% call f() %}", "tag 'call'"}, Refused{"{% do l.append(1) %}", "tag 'do'"},
        Refused{"{% filter upper %}", "tag 'filter'"}, Refused{"{% with x = 1 %}", "tag 'with'"},
        Refused{"{% nonsense %}", "tag 'nonsense'"}, Refused{"{{ x | urlize }}", "filter 'urlize'"},
        Refused{"{{ x | upper | nonsense(1) }}", "filter 'nonsense'"},
        Refused{"{{ x | map('nonsense') }}", "filter 'nonsense'"},
        Refused{"{{ x | select('nonsense') }}", "test 'nonsense'"},
        Refused{"{{ x | selectattr('a', 'nonsense', 1) }}", "test 'nonsense'"},
        Refused{"{% set x | nonsense %}{% endset %}", "filter 'nonsense'"},
        Refused{"{{ x is nonsense }}", "test 'nonsense'"},
        Refused{"{{ x is not nonsense(1) }}", "test 'nonsense'"},
        Refused{"{{ x.encode('utf-8') }}", "method 'encode'"},
        Refused{"{{ 'a{}'.format(1) }}", "method 'format'"},
        Refused{"{% set _ = l.append(1) %}", "method 'append', which changes its object"},
        Refused{"{{ d.update({}) }}", "method 'update', which changes its object"},
        Refused{"{{ cycler('a', 'b') }}", "function 'cycler'"},
        Refused{"{{ nonsense(1) }}", "function 'nonsense'"},
        Refused{"{{ loop(x) }}", "function 'loop'"},
        Refused{"{% for x in y recursive %}{% endfor %}", "recursive loops"},
        Refused{"{% for x in y %}{% macro f() %}{% endmacro %}{% endfor %}",
                "a macro inside of another block"},
        Refused{"{% macro f() %}{{ varargs }}{% endmacro %}", "'varargs' in a macro"},
        Refused{"{% macro f() %}{{ caller() }}{% endmacro %}", "'caller' in a macro"},
        Refused{"{{ range(*x) }}", "arguments unpacked with * or **"},
        Refused{"{{ {1: 'a'} }}", "a dict key that is not a string"},
        Refused{"{{ '%s' % x }}", "formatting of a string with %"},
        Refused{"{{ x[1, 2] }}", "a subscript with a comma"},
        Refused{"{{ 0x1F }}", "the number that begins with 0"},
        Refused{"{{ '\\N{DASH}' }}", "the escape \\N of a character's name"}));

TEST(ChatTemplateRefusal, KnowsFunctionsThatTheTemplateItselfDefinesLater) {
  EXPECT_TRUE(parse_template("{% macro a() %}{{ b() }}{% endmacro %}"
                             "{% macro b() %}{% endmacro %}{% set c = a %}{{ c() }}")
                  .ok());
}

TEST(ChatTemplateRefusal, WhatOnlyRenderingShowsFailsThere) {
  for (const char* source :
       {"{% set name = 'nonsense' %}{{ [1] | map(name) | list }}", "{% set f = '%s' %}{{ f % 1 }}",
        "{{ [1] | map('string') }}", "{{ range(3) }}", "{{ namespace() }}", "{{ {x: 1} }}",
        "{{ 9223372036854775807 + 1 }}", "{{ 'aaa'.replace('', 'b') }}"}) {
    const auto text = render_text(source, R"({"x": 5})");
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << source;
  }
}

TEST(ChatTemplateRefusal, TemplatesAreUtf8) {
  EXPECT_EQ(parse_template("\xC3").status().message(), "the chat template is not valid UTF-8");
}

}  // namespace
}  // namespace pbserve::models::jinja
