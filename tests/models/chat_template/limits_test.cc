// Hostile templates and values end in an error that names a limit: no endless loop, no overflow
// of the stack, no output without end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "models/chat_template/json_value.h"
#include "models/chat_template/parser.h"
#include "tests/models/chat_template/render_text.h"

namespace pbserve::models::jinja {
namespace {

using testing::HasSubstr;

std::string repeat(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

std::string error_of(const std::string& source, const RenderLimits& limits = {}) {
  const auto text = render_text(source, "{}", limits);
  return text.ok() ? "no error" : std::string(text.status().message());
}

constexpr RenderLimits kLittleWork = {.work_units = 1'000'000};

TEST(ChatTemplateLimits, Work) {
  const std::string limit = "limit of 1000000 units of work";
  for (const std::string source :
       {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
        "{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
        "{% endfor %}",
        "{{ 'ab' * 1000000000000 }}", "{{ [1, 2] * 9223372036854775807 }}",
        "{{ 'ab' * 9223372036854775807 }}",
        "{% set s = 'a' * 9999 %}{{ s | replace('a', s) | length }}",
        "{% set s = 'a' * 9999 %}{{ s | join(s) | length }}",
        "{% set s = 'a' * 9999 %}{{ s.join(s) | length }}", "{{ 'a\nb' | indent(1000000000000) }}",
        "{{ [1] | tojson(indent=1000000000000) }}",
        "{% set s = 'a' * 900000 %}{% for i in range(9) %}{{ 'b' in s }}{% endfor %}",
        "{% macro f() %}{% for i in range(9) %}{{ g() }}{% endfor %}{% endmacro %}"
        "{% macro g() %}{% for i in range(99999) %}{% endfor %}{% endmacro %}{{ f() }}"}) {
    EXPECT_THAT(error_of(source, kLittleWork), HasSubstr(limit)) << source;
  }
}

TEST(ChatTemplateLimits, Output) {
  const RenderLimits limits = {.output_bytes = 1000};
  EXPECT_EQ(render_text("{{ 'a' * 1000 }}", "{}", limits).value().size(), 1000u);
  const std::string too_long = "output is longer than the limit of 1000 bytes";
  EXPECT_THAT(error_of("{{ 'a' * 1001 }}", limits), HasSubstr(too_long));
  EXPECT_THAT(error_of("{% for i in range(501) %}ab{% endfor %}", limits), HasSubstr(too_long));
  EXPECT_THAT(error_of("{% set x %}{% for i in range(501) %}ab{% endfor %}{% endset %}", limits),
              HasSubstr(too_long));
}

TEST(ChatTemplateLimits, MacroRecursion) {
  EXPECT_THAT(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
              HasSubstr("nested deeper than the limit of 500"));
}

TEST(ChatTemplateLimits, NestingOfTheSource) {
  const size_t n = 20'000;
  const std::tuple<const char*, const char*, const char*> nests[] = {
      {"(", "1", ")"},    {"[", "1", "]"},   {"{'a':", "1", "}"},   {"not ", "1", ""},
      {"-", "1", ""},     {"f(", "1", ")"},  {"a[", "1", "]"},      {"1 if 1 else ", "1", ""},
      {"a|d(", "1", ")"}, {"a[:", "1", "]"}, {"a is in(", "1", ")"}};
  for (const auto& [open, inside, close] : nests) {
    EXPECT_THAT(error_of("{{ " + repeat(open, n) + inside + repeat(close, n) + " }}"),
                HasSubstr("nested deeper than the limit of 100"))
        << open;
  }
  for (const std::string& source :
       {"{% set " + repeat("(", n) + "x" + repeat(")", n) + " = 1 %}", repeat("{% if 1 %}", n),
        repeat("{% for x in y %}", n), repeat("{% set x %}", n)}) {
    EXPECT_THAT(error_of(source), HasSubstr("nested deeper than the limit of 100"))
        << source.substr(0, 20);
  }
}

TEST(ChatTemplateLimits, ChainsOfOperators) {
  const size_t n = 100'000;
  for (const std::string& source :
       {"{{ 1" + repeat("+1", n), "{{ 1" + repeat("*1", n), "{{ a" + repeat(" or a", n),
        "{{ a" + repeat(".a", n), "{{ a" + repeat("|d", n), "{{ a" + repeat("()", n),
        "{{ a" + repeat("[0]", n), "{{ a" + repeat(" if a", n), "{{ 1" + repeat("**1", n)}) {
    EXPECT_THAT(error_of(source + " }}"), HasSubstr("deeper than the limit of 250 operators"))
        << source.substr(0, 20);
  }
}

TEST(ChatTemplateLimits, WideIsNotDeep) {
  const size_t n = 10'000;
  EXPECT_TRUE(render_text("{{ [" + repeat("1,", n) + "] | length }}").ok());
  EXPECT_TRUE(render_text("{{ 1" + repeat("~1", n) + " }}").ok());
  EXPECT_TRUE(render_text("{{ 1" + repeat("<1", n) + " }}").ok());
  EXPECT_TRUE(render_text("{% if 0 %}" + repeat("{% elif 0 %}", n) + "{% endif %}").ok());
}

TEST(ChatTemplateLimits, SizeOfTheSource) {
  EXPECT_TRUE(render_text(repeat("a", kTemplateBytesMax)).ok());
  EXPECT_THAT(error_of(repeat("a", kTemplateBytesMax + 1)), HasSubstr("the limit is 1048576"));
}

TEST(ChatTemplateLimits, NestingOfValues) {
  EXPECT_THAT(error_of("{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
                       "{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("nested deeper than the limit of 100"));
  EXPECT_THAT(error_of("{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
                       "{% set ns.x = {'a': ns.x} %}{% endfor %}"),
              HasSubstr("nested deeper than the limit of 100"));
  EXPECT_TRUE(parse_json(repeat("[", 100) + repeat("]", 100), "it").ok());
  EXPECT_EQ(parse_json(repeat("[", 1'000'000), "it").status().message(),
            "it: it is nested deeper than the limit of 100");
  EXPECT_FALSE(parse_json(repeat("{\"a\":", 1'000'000), "it").ok());
}

TEST(ChatTemplateLimits, RangesAndNumbers) {
  EXPECT_THAT(error_of("{% for i in range(100001) %}{% endfor %}"), HasSubstr("limit of 100000"));
  EXPECT_THAT(error_of("{% for i in range(-9223372036854775807, 9223372036854775807) %}"
                       "{% endfor %}"),
              HasSubstr("limit of 100000"));
  EXPECT_THAT(error_of("{{ 2 ** 64 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("out of range"));
  EXPECT_EQ(parse_json("18446744073709551615", "it").status().message(),
            "it: the integer 18446744073709551615 does not fit 64 bits");
  EXPECT_EQ(parse_json("123456789012345678901234567890", "it").status().message(),
            "it: the integer 123456789012345678901234567890 does not fit 64 bits");
}

// The deepest allowed nesting of all kinds at once has room on the smallest stack that servers
// give to their threads in practice.
TEST(ChatTemplateLimits, DeepestRecursionFitsTheStack) {
  const std::string chain = "{{ 1" + repeat("+(1", 48) + repeat("+1", 150) + repeat(")", 48);
  const std::string macro = "{% macro f() %}" + chain + "+ (f() | int) }}{% endmacro %}{{ f() }}";
  EXPECT_THAT(error_of(macro), HasSubstr("nested deeper than the limit of 500"));
}

}  // namespace
}  // namespace pbserve::models::jinja
