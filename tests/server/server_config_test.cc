// The config file, flags over it, and every kind of refusal.
#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/command_line.h"
#include "tests/support/temp_dir.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The smallest config that the engine's own check takes.
const ConfigOverride kModel{"model.path", "some/folder"};

absl::StatusOr<ServerConfig> load(std::vector<ConfigOverride> overrides) {
  overrides.push_back(kModel);
  return load_config("", overrides);
}

std::string refusal(std::vector<ConfigOverride> overrides) {
  const auto config = load(std::move(overrides));
  return config.ok() ? "(accepted)" : std::string(config.status().message());
}

class ConfigFile : public ::testing::Test {
 protected:
  absl::StatusOr<ServerConfig> load_text(const std::string& text,
                                         std::vector<ConfigOverride> overrides = {}) {
    folder_.write("config.json", text);
    overrides.push_back(kModel);
    return load_config(folder_.path() + "/config.json", overrides);
  }

  test::TempDir folder_;
};

TEST(ServerConfig, Defaults) {
  const ServerConfig config = *load({});
  EXPECT_EQ(config.server.host, "127.0.0.1");
  EXPECT_EQ(config.http.port, 8000);
  EXPECT_EQ(config.grpc.port, 50051);
  EXPECT_EQ(config.http.max_body_bytes, 64 << 20);
}

TEST(ServerConfig, SizesHaveSuffixes) {
  const auto length = [](const char* text) {
    return load({{"model.max_model_len", text}})->engine.model.max_model_len;
  };
  EXPECT_EQ(length("32768"), 32768);
  EXPECT_EQ(length("128k"), 128000);
  EXPECT_EQ(length("128K"), 131072);
  EXPECT_EQ(length("25.6k"), 25600);
  EXPECT_EQ(length("1m"), 1000000);
  EXPECT_EQ(length("1M"), 1 << 20);
  EXPECT_EQ(length("auto"), 0);
  for (const char* wrong : {"k", "1.5", "1t", "-1x", "1e400k", "nan", ""}) {
    EXPECT_THAT(refusal({{"model.max_model_len", wrong}}), HasSubstr("model.max_model_len"));
  }
}

TEST(ServerConfig, RefusalsNameKeyAndRange) {
  EXPECT_THAT(refusal({{"http.prot", "1"}}), HasSubstr("no key 'http.prot'"));
  EXPECT_THAT(refusal({{"http.port", "99999"}}),
              HasSubstr("http.port = 99999: must be an integer from 0 to 65535"));
  EXPECT_THAT(refusal({{"http.port", "80.5"}}), HasSubstr("an integer"));
  EXPECT_THAT(refusal({{"http.port", "\"80\""}}), HasSubstr("an integer"));
  EXPECT_THAT(refusal({{"http.strict_params", "yes"}}), HasSubstr("true or false"));
  EXPECT_THAT(refusal({{"pbs.scorer", "max"}}),
              HasSubstr("one of mass, query, mean, antidiagonal"));
  EXPECT_THAT(refusal({{"pbs.selector", "max"}}), HasSubstr("auto, error_bound, top_p, max_ratio"));
  EXPECT_THAT(refusal({{"pbs.threshold", "1e308"}}), HasSubstr("pbs.threshold"));
  EXPECT_THAT(refusal({{"pbs.threshold", "much"}}), HasSubstr("must be a number, or auto"));
  EXPECT_THAT(refusal({{"server.api_keys", "[1]"}}), HasSubstr("an array of strings"));
  EXPECT_THAT(refusal({{"server.api_keys", "[\"\"]"}}), HasSubstr("must not be empty"));
  EXPECT_THAT(refusal({{"grpc.max_buffered_message_bytes", "1M"}}),
              HasSubstr("= 1048576: must be at least grpc.max_message_bytes = 268435456"));
  // The engine's own range.
  EXPECT_THAT(refusal({{"scheduler.max_num_seqs", "0"}}), HasSubstr("scheduler.max_num_seqs"));
}

TEST(ServerConfig, AScorerAloneIsEnough) {
  for (const char* scorer : {"mass", "query", "mean", "antidiagonal"}) {
    EXPECT_EQ(refusal({{"pbs.scorer", scorer}}), "(accepted)");
  }
  const auto query = load({{"pbs.scorer", "query"}, {"pbs.threshold", "auto"}});
  EXPECT_EQ(pbs_params(query->engine.pbs).threshold, 0.75f);
  const std::string both = refusal({{"pbs.scorer", "query"}, {"pbs.selector", "error_bound"}});
  EXPECT_THAT(both, HasSubstr("pbs.scorer"));
  EXPECT_THAT(both, HasSubstr("pbs.selector"));
}

TEST_F(ConfigFile, HasCommentsAndLosesToOverrides) {
  const ServerConfig config = *load_text(R"({
    // a comment
    "http": {"port": 1234, "json": {"max_depth": 10}}, /* another */
    "model": {"hf_overrides": {"rope_theta": 5}},
    "pbs": {"mode": "dense", "scorer": "query", "selector": "max_ratio"}})",
                                         {{"http.port", "4321"}});
  EXPECT_EQ(config.http.port, 4321);
  EXPECT_EQ(config.http.json.max_depth, 10);
  EXPECT_EQ(config.engine.model.hf_overrides, R"({"rope_theta":5})");
  EXPECT_EQ(config.engine.pbs.mode, engine::SparseMode::kDense);
  EXPECT_FALSE(config.engine.model.special_tokens_in_content);
}

TEST_F(ConfigFile, RefusesWithItsName) {
  for (const char* text :
       {"{", "[]", R"({"htp": {"port": 1}})", R"({"http": 5})", R"({"http": {}},)",
        R"({"nothing": {}})", R"({"http": {"port": null}})"}) {
    const auto config = load_text(text);
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("config.json")) << text;
  }
  EXPECT_EQ(load_config("/does/not/exist", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ConfigFile, KeysComeFromAFileAndStayHidden) {
  const std::string path = folder_.path() + "/keys";
  folder_.write("keys", "one\n\n  two  \n");
  const ServerConfig config =
      *load({{"server.api_key_file", path}, {"server.api_keys", "[\"zero\"]"}});
  EXPECT_THAT(config.server.api_keys, ElementsAre("zero", "one", "two"));
  const std::string shown = dump_json(effective_config(config));
  EXPECT_THAT(shown, Not(HasSubstr("zero")));
  EXPECT_THAT(shown, HasSubstr("(hidden)"));
  folder_.write("keys", "\n");
  EXPECT_THAT(refusal({{"server.api_key_file", path}}), HasSubstr("holds no key"));
}

TEST_F(ConfigFile, EffectiveConfigIsAConfigFile) {
  const ServerConfig config =
      *load({{"http.port", "99"}, {"pbs.stride", "16"}, {"pbs.threshold", "0.8"}});
  const ServerConfig again = *load_text(dump_json(effective_config(config)));
  EXPECT_EQ(effective_config(again), effective_config(config));
  EXPECT_EQ(again.engine.pbs.params.stride, 16);
  EXPECT_EQ(again.engine.pbs.threshold, 0.8f);
  EXPECT_EQ(again.engine.pbs.selector, std::nullopt);
}

// Every file of configs/ loads.
TEST(ServerConfig, ShippedFilesLoad) {
  int num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PBSERVE_SOURCE_DIR "/configs")) {
    const auto config = load_config(entry.path().string(), {});
    EXPECT_TRUE(config.ok()) << config.status();
    ++num_files;
  }
  EXPECT_GE(num_files, 4);
}

CommandLineResult parse(std::vector<const char*> args) {
  args.insert(args.begin(), "pbserve");
  return parse_command_line(static_cast<int>(args.size()), args.data());
}

TEST(CommandLine, FlagsAreAliasesOfKeys) {
  const CommandLineResult result =
      parse({"--config", "file.json", "--model", "m", "--port=0", "--max-model-len", "128k",
             "--no-enable-prefix-caching", "--strict-params", "--api-key", "a", "--api-key", "b",
             "--hf-overrides", "{\"a\": 1}", "--set", "pbs.threshold=0.8",
             "--set=model.special_tokens_in_content=true"});
  ASSERT_TRUE(result.command_line.has_value());
  EXPECT_EQ(result.command_line->config_file, "file.json");
  const ServerConfig config = *load_config("", result.command_line->overrides);
  EXPECT_EQ(config.engine.model.path, "m");
  EXPECT_EQ(config.http.port, 0);
  EXPECT_EQ(config.engine.model.max_model_len, 128000);
  EXPECT_EQ(config.engine.model.hf_overrides, "{\"a\": 1}");
  EXPECT_FALSE(config.engine.scheduler.enable_prefix_caching);
  EXPECT_TRUE(config.http.strict_params);
  EXPECT_THAT(config.server.api_keys, ElementsAre("a", "b"));
  EXPECT_EQ(config.engine.pbs.threshold, 0.8f);
  EXPECT_TRUE(config.engine.model.special_tokens_in_content);
}

TEST(CommandLine, WrongFlagsEndTheStart) {
  for (const char* wrong : {"--prot=1", "stray", "--set=novalue"}) {
    const CommandLineResult result = parse({wrong});
    EXPECT_FALSE(result.command_line.has_value()) << wrong;
    EXPECT_NE(result.exit_code, 0) << wrong;
  }
  EXPECT_EQ(parse({"--help"}).exit_code, 0);
}

}  // namespace
}  // namespace pbserve::server
