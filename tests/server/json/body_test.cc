// Limits and errors of the JSON reader, and the exact types of its fields.
#include "server/json/body.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/api_error.h"
#include "server/json/field_reader.h"

namespace pbserve::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string message(const absl::Status& status) { return std::string(status.message()); }

std::string nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(JsonBody, DepthIsBounded) {
  const JsonLimits limits{.max_depth = 8};
  EXPECT_TRUE(parse_json(nested(8), limits).ok());
  EXPECT_THAT(message(parse_json(nested(9), limits).status()), HasSubstr("more than 8 levels"));
  // Far beyond any stack, and unclosed.
  EXPECT_FALSE(parse_json(std::string(1 << 20, '['), limits).ok());
}

TEST(JsonBody, ValuesAreBounded) {
  const JsonLimits limits{.max_values = 10};
  EXPECT_TRUE(parse_json("[1,2,3,4,5,6,7,8,9]", limits).ok());
  EXPECT_THAT(message(parse_json("[1,2,3,4,5,6,7,8,9,10,11]", limits).status()),
              HasSubstr("more than 10 values"));
  EXPECT_FALSE(parse_json("[{},{},{},{},{},{}]", limits).ok());
}

TEST(JsonBody, ObjectMembersAreBoundedAndArraysAreNot) {
  const JsonLimits limits{.max_object_members = 3};
  EXPECT_TRUE(parse_json(R"({"a":1,"b":2,"c":[1,2,3,4,5]})", limits).ok());
  EXPECT_THAT(message(parse_json(R"({"a":1,"b":2,"c":3,"d":4})", limits).status()),
              HasSubstr("members in one object"));
}

TEST(JsonBody, BracketsInStringsDoNotCount) {
  const JsonLimits limits{.max_depth = 1, .max_values = 3};
  EXPECT_TRUE(parse_json(R"({"a":"[[[,,,,\"[{,,"})", limits).ok());
  EXPECT_FALSE(parse_json(R"("unclosed \)", limits).ok());
}

TEST(JsonBody, RefusesWhatIsNotJson) {
  for (const char* text : {"", "{", "{\"a\":}", "nul", "NaN", "[Infinity]", "[1e400]", "{\"a\":1}}",
                           "'a'", "\"\\ud800\"", "\"\\udc00x\"", "\"\xff\"", "\"\xc3\"",
                           "\"\xed\xa0\x80\"", "\"raw\nline\""}) {
    const auto parsed = parse_json(text, {});
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(message(parsed.status()), HasSubstr("not valid JSON")) << text;
  }
}

TEST(JsonBody, ErrorsStayShort) {
  EXPECT_LT(message(parse_json(std::string(1 << 20, 'x'), {}).status()).size(), 300);
}

// Errors are logged, and the text is somebody's prompt.
TEST(JsonBody, ErrorsQuoteNothing) {
  for (const char* text :
       {R"({"a": "wombat")", "wombat", R"(["wombat\x"])", "\"wombat", R"({"wombat" 1})",
        "[\"wombat; last read: 'wombat\n\"]", R"({"a": ;wombat})", "[1] wombat",
        R"(["\ud800wombat"])", R"({"wombat": 1,})"}) {
    const std::string problem = message(parse_json(text, {}).status());
    EXPECT_THAT(problem, HasSubstr("at line ")) << text;
    EXPECT_THAT(problem, Not(HasSubstr("wombat"))) << text;
  }
  EXPECT_THAT(message(parse_json("[31415926e999]", {}).status()), Not(HasSubstr("31415926")));
}

TEST(JsonBody, TakesWhatClientsSend) {
  EXPECT_EQ(*parse_json("\xef\xbb\xbf{\"a\":1}", {}), Json({{"a", 1}}));
  EXPECT_EQ(*parse_json(R"("a\u0000b")", {}), Json(std::string("a\0b", 3)));
  EXPECT_EQ((*parse_json(R"({"a":1,"a":2})", {}))["a"], 2);  // the last one, as Python does
  EXPECT_EQ(dump_json(*parse_json(R"({"z":1,"a":2})", {})), R"({"z":1,"a":2})");
}

TEST(JsonBody, ReadsWhatTheLibraryReads) {
  for (const char* text : {"null", "true", "-1", "18446744073709551615", "1.5", R"("a")", "[]",
                           "{}", "[[],{},[1,[2]]]", R"({"a":[{"b":null},2],"c":{"d":"e"},"f":[]})",
                           R"({"z":1,"a":{"z":2},"z":[3]})", R"({"a":[1,2],"a":{"b":1},"b":0})"}) {
    const auto parsed = parse_json(text, {});
    ASSERT_TRUE(parsed.ok()) << text;
    EXPECT_EQ(dump_json(*parsed), Json::parse(text).dump());
  }
}

// Of a name that comes more than once the first place and the last value count, as in Python.
TEST(JsonBody, EqualNamesAreOneMember) {
  for (const auto& [text, expected] :
       {std::pair{R"({"a":1,"b":2,"a":3,"a":[4]})", R"({"a":[4],"b":2})"},
        {R"({"a":{"x":1},"a":null,"b":{"c":1,"c":2}})", R"({"a":null,"b":{"c":2}})"},
        {R"({"b":0,"":1,"b":{"b":[1]},"":{}})", R"({"b":{"b":[1]},"":{}})"}}) {
    EXPECT_EQ(dump_json(*parse_json(text, {})), expected);
  }
}

double parse_seconds(const std::string& text) {
  const JsonLimits limits{.max_object_members = 1 << 20};
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    absl::StatusOr<Json> value = parse_json(text, limits);
    best = std::min(best, std::chrono::duration<double>(  //
                              std::chrono::steady_clock::now() - begin)
                              .count());
    EXPECT_TRUE(value.ok()) << value.status();
    if (value.ok()) release_json(&*value);
  }
  return best;
}

// A look-up of each name among those before it would take hundreds of times as long.
TEST(JsonBody, MembersCostLittleMoreThanItems) {
  std::string object;
  std::string array;
  for (int i = 0; i < 200000; ++i) {
    object += absl::StrFormat("%c\"member%06d\":%6d", i == 0 ? '{' : ',', i, i);
    array += absl::StrFormat("%c\"member%06d\",%6d", i == 0 ? '[' : ',', i, i);
  }
  EXPECT_LT(parse_seconds(object + "}"), 8 * parse_seconds(array + "]"));
}

TEST(JsonBody, ReleaseLeavesNull) {
  Json value = *parse_json(R"({"a":[1,{"b":[2,"c"]}],"d":{}})", {});
  { const JsonRelease release(&value); }
  EXPECT_TRUE(value.is_null());
}

TEST(JsonBody, BodiesAreObjects) {
  EXPECT_TRUE(parse_json_object("{}", {}).ok());
  EXPECT_THAT(message(parse_json_object("[1]", {}).status()), HasSubstr("not array"));
}

TEST(FieldReader, KeepsTheFirstErrorWithItsPath) {
  const Json body = {{"a", "x"}, {"b", "y"}};
  FieldReader reader(body, "outer.");
  std::optional<int32_t> number;
  reader.read("a", &number);
  reader.read("b", &number);
  EXPECT_EQ(error_param(reader.status()), "outer.a");
  EXPECT_THAT(message(reader.status()), HasSubstr("outer.a must be an integer, not a string"));
}

template <class T>
bool reads_as(const char* json) {
  const Json body = {{"field", Json::parse(json)}};
  FieldReader reader(body);
  std::optional<T> value;
  reader.read("field", &value);
  EXPECT_TRUE(reader.ok() == value.has_value() || body["field"].is_null());
  return reader.ok() && value.has_value();
}

TEST(FieldReader, IntegersAreExact) {
  EXPECT_TRUE(reads_as<int32_t>("2147483647"));
  EXPECT_TRUE(reads_as<int32_t>("-2147483648"));
  EXPECT_TRUE(reads_as<int32_t>("2.0"));  // an integer, says JSON Schema
  EXPECT_TRUE(reads_as<int64_t>("9007199254740992.0"));
  EXPECT_FALSE(reads_as<int64_t>("9007199254740994.0"));  // the client may have meant another
  for (const char* wrong : {"2147483648", "-2147483649", "9223372036854775808", "1e308", "2.5",
                            "\"2\"", "true", "[2]", "18446744073709551616"}) {
    EXPECT_FALSE(reads_as<int32_t>(wrong)) << wrong;
  }
  EXPECT_TRUE(reads_as<int64_t>("9223372036854775807"));
  EXPECT_FALSE(reads_as<int64_t>("9223372036854775808"));
  EXPECT_FALSE(reads_as<int64_t>("null"));
}

TEST(FieldReader, ErrorsShowNumbersAndOfTheRestTheKind) {
  const auto error = [](const char* json) {
    const Json body = {{"ids", Json::parse(json)}};
    FieldReader reader(body);
    std::vector<int32_t> ids;
    reader.read("ids", &ids);
    return message(reader.status());
  };
  EXPECT_THAT(error("[1, 2.5]"), HasSubstr("element 1 must be an integer, not 2.5"));
  EXPECT_THAT(error(R"([1, "wombat"])"), HasSubstr("not a string"));
  EXPECT_THAT(error(R"([["wombat"]])"), HasSubstr("not an array"));
  EXPECT_THAT(error(R"({"wombat": 1})"), HasSubstr("not an object"));
}

TEST(FieldReader, FloatsAreFinite) {
  EXPECT_TRUE(reads_as<float>("0.5"));
  EXPECT_TRUE(reads_as<float>("2"));
  for (const char* wrong : {"1e308", "\"0.5\"", "false"}) EXPECT_FALSE(reads_as<float>(wrong));
}

TEST(FieldReader, SeedsAreAny64Bits) {
  for (const auto& [json, expected] : {std::pair{"-1", ~uint64_t{0}},
                                       {"18446744073709551615", ~uint64_t{0}},
                                       {"7", uint64_t{7}}}) {
    const Json body = {{"seed", Json::parse(json)}};
    FieldReader reader(body);
    std::optional<uint64_t> seed;
    reader.read_seed("seed", &seed);
    EXPECT_EQ(seed, expected);
  }
  const Json body = {{"seed", 1.5}, {"whole", -3.0}};
  FieldReader reader(body);
  std::optional<uint64_t> seed;
  reader.read_seed("seed", &seed);
  EXPECT_FALSE(reader.ok());
  FieldReader whole(body);
  whole.read_seed("whole", &seed);
  EXPECT_EQ(seed, static_cast<uint64_t>(-3));
}

TEST(FieldReader, NamesUnknownFields) {
  const Json body = {{"known", true}, {"other", 1}};
  FieldReader reader(body);
  bool known = false;
  reader.read("known", &known);
  EXPECT_TRUE(known);
  EXPECT_EQ(error_param(reader.check_no_unknown()), "other");
  reader.accept("other");
  EXPECT_TRUE(reader.check_no_unknown().ok());
  const Json long_name = {{std::string(1 << 20, 'a'), 1}};
  EXPECT_LT(message(FieldReader(long_name).check_no_unknown()).size(), 300);
}

}  // namespace
}  // namespace pbserve::server
