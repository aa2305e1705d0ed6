// generation_config.json: ends of text and sampling defaults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/config.h"
#include "tests/support/temp_dir.h"

namespace pbserve::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Files {
  const char* generation;  // nullptr = no such file
  const char* config = R"({"eos_token_id": 7})";
};

absl::StatusOr<GenerationDefaults> load(const Files& files) {
  const test::TempDir folder;
  folder.write("config.json", files.config);
  if (files.generation != nullptr) folder.write("generation_config.json", files.generation);
  return load_generation_defaults(folder.path());
}

GenerationDefaults load_ok(const Files& files) {
  absl::StatusOr<GenerationDefaults> defaults = load(files);
  EXPECT_TRUE(defaults.ok()) << defaults.status();
  return defaults.value_or(GenerationDefaults{});
}

TEST(GenerationDefaults, ReadsAQwenFile) {
  const GenerationDefaults defaults = load_ok({R"({"bos_token_id": 1, "pad_token_id": 1,
      "do_sample": true, "eos_token_id": [9, 5, 9], "temperature": 0.6, "top_k": 20,
      "top_p": 0.95, "repetition_penalty": 1.05, "transformers_version": "4.51.0"})"});
  EXPECT_THAT(defaults.eos_token_ids, ElementsAre(5, 9));
  EXPECT_FLOAT_EQ(defaults.temperature.value(), 0.6f);
  EXPECT_FLOAT_EQ(defaults.top_p.value(), 0.95f);
  EXPECT_EQ(defaults.top_k.value(), 20);
  EXPECT_THAT(defaults.unused_keys, ElementsAre("repetition_penalty"));
}

TEST(GenerationDefaults, NotSamplingIsTemperatureZero) {
  const GenerationDefaults defaults = load_ok({R"({"do_sample": false, "temperature": 0.6})"});
  EXPECT_EQ(defaults.temperature.value(), 0.0f);
}

TEST(GenerationDefaults, SaysNothingWhereTheFileSaysNothing) {
  for (const char* generation : {static_cast<const char*>(nullptr), "{}"}) {
    const GenerationDefaults defaults = load_ok({generation});
    EXPECT_THAT(defaults.eos_token_ids, ElementsAre(7)) << "from config.json";
    EXPECT_FALSE(defaults.temperature.has_value());
    EXPECT_FALSE(defaults.top_p.has_value());
    EXPECT_FALSE(defaults.top_k.has_value());
  }
}

TEST(GenerationDefaults, AModelWithoutAnEndOfTextIsFine) {
  EXPECT_THAT(load_ok({"{}", R"({"eos_token_id": null})"}).eos_token_ids, IsEmpty());
}

TEST(GenerationDefaults, BrokenFilesAreErrors) {
  const auto message = [](const Files& files) {
    return std::string(load(files).status().message());
  };
  EXPECT_THAT(message({"{"}), HasSubstr("generation_config.json: not valid JSON"));
  EXPECT_THAT(message({"[]"}), HasSubstr("generation_config.json: expected a JSON object"));
  EXPECT_THAT(message({R"({"eos_token_id": "x"})"}), HasSubstr("'eos_token_id' is \"x\""));
  EXPECT_THAT(message({R"({"eos_token_id": [-1]})"}), HasSubstr("'eos_token_id' is -1"));
  EXPECT_THAT(message({R"({"eos_token_id": [2147483648]})"}), HasSubstr("'eos_token_id' is 2147"));
  EXPECT_THAT(message({R"({"top_p": 0})"}), HasSubstr("'top_p' is 0"));
  EXPECT_THAT(message({R"({"top_k": -1})"}), HasSubstr("'top_k' is -1"));
  EXPECT_THAT(message({R"({"temperature": -0.5})"}), HasSubstr("'temperature' is -0.5"));
  EXPECT_THAT(message({R"({"do_sample": 1})"}), HasSubstr("'do_sample' is 1"));
  EXPECT_THAT(message({"{}", "{"}), HasSubstr("config.json: not valid JSON"));
  std::string many = "{\"eos_token_id\": [0";
  for (int id = 1; id < 33; ++id) many.append(",").append(std::to_string(id));
  many += "]}";
  EXPECT_THAT(message({many.c_str()}), HasSubstr("has 33 entries, the limit is 32"));
}

}  // namespace
}  // namespace pbserve::models
