// What a client wrote stays marked as such through every operator, filter and method: in the
// results below it stands in brackets.

#include <gtest/gtest.h>

#include "models/chat_template/evaluator.h"
#include "models/chat_template/json_value.h"
#include "models/chat_template/parser.h"

namespace pbserve::models::jinja {
namespace {

// "<" and ">" around the whole are the template's own, so that brackets have something to stand in.
std::string marked(const std::string& source) {
  const auto block = parse_template("<" + source + ">");
  EXPECT_TRUE(block.ok()) << block.status();
  const auto context = parse_json(R"({"x": " aB ", "y": "b", "list": ["p", "q"], "n": 12,
                                      "dict": {"k": ["v"]}, "both": "one,two\nthree four"})",
                                  "context");
  Runtime runtime({}, /*clock=*/0);
  const auto text = Evaluator(runtime, *context->dict()).render(*block);
  EXPECT_TRUE(text.ok()) << text.status();
  std::string shown;
  text->visit_parts([&](std::string_view part, bool is_content) {
    shown.append(is_content ? concat("[", part, "]") : std::string(part));
  });
  return shown;
}

struct Case {
  const char* source;
  const char* marked;
};

class Marking : public testing::TestWithParam<Case> {};

TEST_P(Marking, Holds) { EXPECT_EQ(marked(GetParam().source), GetParam().marked); }

INSTANTIATE_TEST_SUITE_P(
    Operators, Marking,
    testing::Values(Case{"{{ x }}", "<[ aB ]>"},             //
                    Case{"{{ 'a' }}", "<a>"},                //
                    Case{"{{ 'a' + y + 'c' }}", "<a[b]c>"},  //
                    Case{"{{ 'a' ~ y ~ n ~ 'c' }}", "<a[b]12c>"},
                    Case{"{{ y * 3 }}", "<[bbb]>"},                  //
                    Case{"{{ ('a' + y) * 2 }}", "<a[b]a[b]>"},       //
                    Case{"{{ x[1:] }}", "<[aB ]>"},                  //
                    Case{"{{ ('a' + y + 'c')[1:] }}", "<[b]c>"},     //
                    Case{"{{ ('a' + y + 'c')[::-1] }}", "<c[b]a>"},  //
                    Case{"{{ x[1] }}", "<[a]>"},                     //
                    Case{"{{ ('a' + y)[0] }}", "<a>"},               //
                    Case{"{{ 'yes' if 'a' in x }}", "<yes>"},        //
                    Case{"{{ dict.k[0] }}", "<[v]>"},                //
                    Case{"{{ ['z', y] }}", "<[['z', 'b']]>"},        //
                    Case{"{{ dict }}", "<[{'k': ['v']}]>"},          //
                    Case{"{% for c in y + 'd' %}{{ c }};{% endfor %}", "<[b];d;>"},
                    Case{"{% for k in dict %}{{ k }}{% endfor %}", "<[k]>"},
                    Case{"{% set s %}a{{ y }}c{% endset %}{{ s }}", "<a[b]c>"},
                    Case{"{% macro m(v) %}a{{ v }}c{% endmacro %}{{ m(y) }}", "<a[b]c>"},
                    Case{"{% set ns = namespace(t='a') %}{% set ns.t = ns.t + y %}{{ ns.t }}",
                         "<a[b]>"}));

INSTANTIATE_TEST_SUITE_P(
    Filters, Marking,
    testing::Values(Case{"{{ x | trim }}", "<[aB]>"},                   //
                    Case{"{{ ('  a' + x) | trim }}", "<a[ aB]>"},       //
                    Case{"{{ ('a' + y + 'c') | upper }}", "<A[B]C>"},   //
                    Case{"{{ ('A' + x) | lower }}", "<a[ ab ]>"},       //
                    Case{"{{ y | capitalize }}", "<[B]>"},              //
                    Case{"{{ 'a' | title }}", "<A>"},                   //
                    Case{"{{ ('a ' + y) | title }}", "<[A B]>"},        //
                    Case{"{{ y | string }}{{ y | safe }}", "<[bb]>"},   //
                    Case{"{{ x | replace('B', 'c') }}", "<[ a]c[ ]>"},  //
                    Case{"{{ 'a_c' | replace('_', y) }}", "<a[b]c>"},   //
                    Case{"{{ (y + '\nc') | indent(2) }}", "<[b]\n  c>"},
                    Case{"{{ list | join('-') }}", "<[p]-[q]>"},
                    Case{"{{ ['a', 'c'] | join(y) }}", "<a[b]c>"},
                    Case{"{{ dict | tojson }}", "<[{\"k\": [\"v\"]}]>"},
                    Case{"{{ {'a': y} | tojson }}", "<[{\"a\": \"b\"}]>"},
                    Case{"{{ {'a': 1} | tojson }}", "<{\"a\": 1}>"},
                    Case{"{{ y | default('a') }}{{ z | default('a') }}", "<[b]a>"},
                    Case{"{{ list | first }}{{ list | last }}", "<[pq]>"},
                    Case{"{{ y | first }}{{ (y + 'c') | last }}", "<[b]c>"},
                    Case{"{{ list | map('upper') | join }}", "<[PQ]>"},
                    Case{"{{ list | sort(reverse=true) | join }}", "<[qp]>"},
                    Case{"{{ list | unique | join }}{{ list | max }}", "<[pqq]>"},
                    Case{"{{ (y + 'c') | reverse }}", "<c[b]>"},
                    Case{"{{ list | sum(start='') }}", "<[pq]>"},
                    Case{"{{ dict | items | first | join(':') }}", "<[k]:[['v']]>"},
                    Case{"{{ dict | dictsort | first | first }}", "<[k]>"}));

INSTANTIATE_TEST_SUITE_P(
    Methods, Marking,
    testing::Values(Case{"{{ x.strip() }}{{ x.lstrip() }}{{ x.rstrip() }}", "<[aBaB  aB]>"},
                    Case{"{{ ('a' + y).upper() }}{{ y.title() }}", "<A[BB]>"},
                    Case{"{{ both.split(',')[1] }}", "<[two\nthree four]>"},
                    Case{"{{ both.split()[2] }}{{ both.rsplit(' ', 1)[1] }}", "<[fourfour]>"},
                    Case{"{{ both.splitlines()[1] }}", "<[three four]>"},
                    Case{"{{ ('a,' + y).split(',') | join('|') }}", "<a|[b]>"},
                    Case{"{{ (y + 'c').removeprefix('b') }}", "<c>"},
                    Case{"{{ ('a' + y).removesuffix('x') }}", "<a[b]>"},
                    Case{"{{ 'a_c'.replace('_', y) }}", "<a[b]c>"},
                    Case{"{{ y.join(['a', 'c']) }}{{ '-'.join(list) }}", "<a[b]c[p]-[q]>"},
                    Case{"{{ dict.get('k')[0] }}{{ dict.get('z', 'a') }}", "<[v]a>"},
                    Case{"{{ dict.keys() | list | first }}{{ dict.items() | list }}",
                         "<[k[('k', ['v'])]]>"},
                    Case{"{{ strftime_now(y) }}{{ strftime_now('%%') }}", "<[b]%>"}));

TEST(MarkedText, AppendKeepsTheMarksOfAPartAndMergesThoseThatTouch) {
  MarkedText text(std::string("ab"));
  text.append(MarkedText::content("cd"));
  text.append(MarkedText::content("ef"));
  text.append("gh");
  EXPECT_EQ(text.content(), (std::vector<TextSpan>{{2, 6}}));
  const std::string_view all = text.bytes();
  EXPECT_EQ(text.cut(all.substr(1, 3)).content(), (std::vector<TextSpan>{{1, 3}}));
  EXPECT_EQ(text.cut(all.substr(6)).content(), std::vector<TextSpan>());
  EXPECT_EQ(text.cut(all.substr(3, 0)).content(), std::vector<TextSpan>());
}

}  // namespace
}  // namespace pbserve::models::jinja
