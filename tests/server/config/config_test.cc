// The config file, flags over it, and every kind of refusal.
#include "server/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "server/config/command_line.h"
#include "server/config/host_address.h"
#include "server/config/model_folder.h"
#include "tests/support/temp_dir.h"

namespace pbserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

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

std::vector<std::string> keys_of(const ServerConfig& config) {
  std::vector<std::string> keys;
  for (const ApiKey& key : config.server.keys) keys.push_back(key.key);
  return keys;
}

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
  EXPECT_THAT(refusal({{"server.max_buffered_bytes", "100M"}}),
              HasSubstr("= 104857600: must be at least grpc.max_message_bytes = 268435456"));
  EXPECT_THAT(refusal({{"server.max_buffered_bytes", "1M"}}),
              HasSubstr("= 1048576: must be at least http.max_body_bytes = 67108864"));
  for (const char* former : {"http.max_buffered_body_bytes", "grpc.max_buffered_message_bytes"}) {
    EXPECT_EQ(refusal({{former, "1G"}}), std::string(former) + " is now server.max_buffered_bytes");
  }
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

// SIGHUP is taken on the thread that takes SIGTERM too.
TEST_F(ConfigFile, APipeInItsPlaceIsRefusedAndNotWaitedFor) {
  const std::string pipe = folder_.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, std::string("/dev/zero")}) {
    EXPECT_EQ(load_config(path, {}).status().message(),
              path + ": is a pipe or a device, not a file");
    EXPECT_EQ(refusal({{"server.api_key_file", path}}),
              "server.api_key_file = " + path + ": is a pipe or a device, not a file");
  }
}

TEST_F(ConfigFile, AFileWithoutEndIsRefused) {
  folder_.write("keys", std::string((4 << 20) + 1, 'k'));
  EXPECT_THAT(refusal({{"server.api_key_file", folder_.path() + "/keys"}}),
              HasSubstr("/keys: is larger than 4194304 bytes"));
}

TEST_F(ConfigFile, ReadAgainItAsksNoNameServer) {
  const std::vector<ConfigOverride> overrides{kModel, {"server.host", "no-such-host.invalid"}};
  EXPECT_EQ(read_config("", overrides)->server.host, "no-such-host.invalid");
  EXPECT_THAT(std::string(load_config("", overrides).status().message()),
              HasSubstr("server.host = no-such-host.invalid"));
}

TEST_F(ConfigFile, AFolderInItsPlaceIsAnErrorWithItsName) {
  const auto config = load_config(folder_.path(), {});
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(folder_.path() + ": is a folder"));
  EXPECT_THAT(refusal({{"server.api_key_file", folder_.path()}}),
              HasSubstr("server.api_key_file = " + folder_.path() + ": is a folder"));
}

TEST_F(ConfigFile, KeysComeFromAFileAndStayHidden) {
  const std::string path = folder_.path() + "/keys";
  folder_.write("keys", "one\n\n  two  \n");
  const ServerConfig config =
      *load({{"server.api_key_file", path}, {"server.api_keys", "[\"zero\"]"}});
  EXPECT_THAT(keys_of(config), ElementsAre("zero", "one", "two"));
  const std::string shown = dump_json(effective_config(config));
  EXPECT_THAT(shown, Not(HasSubstr("zero")));
  EXPECT_THAT(shown, HasSubstr("(hidden)"));
  folder_.write("keys", "\n");
  EXPECT_THAT(refusal({{"server.api_key_file", path}}), HasSubstr("holds no key"));
}

TEST_F(ConfigFile, LinesWithANumberSignAreNoKeys) {
  const std::string path = folder_.path() + "/keys";
  folder_.write("keys", "# for the team\n  # old\r\none\r\ntwo#2\n");
  EXPECT_THAT(keys_of(*load({{"server.api_key_file", path}})), ElementsAre("one", "two#2"));
  folder_.write("keys", "# nothing else\n");
  EXPECT_THAT(refusal({{"server.api_key_file", path}}), HasSubstr("holds no key"));
}

class Environment : public ::testing::Test {
 protected:
  void set_keys(const char* text) { ASSERT_EQ(setenv("PBSERVE_API_KEYS", text, 1), 0); }
  void TearDown() override { unsetenv("PBSERVE_API_KEYS"); }
};

TEST_F(Environment, KeysComeFromItAndStayHidden) {
  set_keys("one, two\nthree,\n");
  const ServerConfig config = *load({{"server.api_keys", "[\"zero\"]"}});
  EXPECT_THAT(keys_of(config), ElementsAre("zero", "one", "two", "three"));
  EXPECT_THAT(dump_json(effective_config(config)), Not(HasSubstr("three")));
}

TEST_F(Environment, KeysThatAreNoneAreRefusedAndAnEmptyTextIsUnset) {
  set_keys("");
  EXPECT_THAT(load({})->server.keys, IsEmpty());
  set_keys(" ,\n");
  EXPECT_THAT(refusal({}), HasSubstr("PBSERVE_API_KEYS: holds no key"));
}

// A limit of nobody is a mistake.
TEST(ServerConfig, LimitsOfKeysNeedKeys) {
  for (const char* key : {"server.max_requests_per_key", "server.max_tokens_per_key"}) {
    EXPECT_THAT(refusal({{key, "2"}}), HasSubstr(std::string(key) + " = 2: needs API keys"));
    EXPECT_EQ(refusal({{key, "2"}, {"server.api_keys", "[\"a\"]"}}), "(accepted)");
    EXPECT_EQ(refusal({{key, "0"}}), "(accepted)");
    EXPECT_THAT(refusal({{key, "-1"}}), HasSubstr(key));
  }
}

TEST(ServerConfig, AHostsNameBecomesItsAddress) {
  const auto host = [](const char* text) { return load({{"server.host", text}})->server.host; };
  EXPECT_EQ(host("localhost"), "127.0.0.1");
  for (const char* address : {"0.0.0.0", "127.0.0.2", "::1", "::"}) {
    EXPECT_EQ(host(address), address);
  }
  for (const char* wrong : {"", "no-such-host.invalid", "[::1]", "1.2.3.4.5"}) {
    EXPECT_THAT(refusal({{"server.host", wrong}}),
                HasSubstr(std::string("server.host = ") + wrong + ": must be an address"));
  }
}

TEST(HostAddress, OnlyLoopbackIsThisMachines) {
  for (const char* address : {"127.0.0.1", "127.8.9.1", "::1"}) EXPECT_TRUE(is_loopback(address));
  for (const char* address : {"0.0.0.0", "::", "10.0.0.1", "fe80::1", "12.7.0.0"}) {
    EXPECT_FALSE(is_loopback(address)) << address;
  }
}

TEST(ServerConfig, OnlySizesWithAnAutomaticValueTakeAuto) {
  const Json shown = effective_config(*load({{"pbs.min_tokens", "auto"}}));
  EXPECT_EQ(shown["pbs"]["min_tokens"], "auto");
  EXPECT_EQ(shown["model"]["max_model_len"], "auto");
  EXPECT_EQ(shown["device"]["kv_cache_bytes"], "auto");
  for (const char* path : {"pbs.span", "http.max_body_bytes", "scheduler.max_num_queued_tokens"}) {
    const std::string text = refusal({{path, "auto"}});
    EXPECT_THAT(text, HasSubstr(path));
    EXPECT_THAT(text, Not(HasSubstr("or auto")));
  }
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
    ASSERT_TRUE(config.ok()) << config.status();
    const ServerOptions& server = config->server;
    EXPECT_TRUE(server.host == "127.0.0.1" || !server.api_key_file.empty())
        << entry.path() << " is open to everybody";
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
  EXPECT_THAT(keys_of(config), ElementsAre("a", "b"));
  EXPECT_EQ(config.engine.pbs.threshold, 0.8f);
  EXPECT_TRUE(config.engine.model.special_tokens_in_content);
}

TEST(ModelFolder, AHubNameIsToldHowToGetIt) {
  const std::string text(check_model_folder("Qwen/Qwen3-8B").message());
  EXPECT_THAT(text, HasSubstr("model.path = Qwen/Qwen3-8B: there is no such folder"));
  EXPECT_THAT(text, HasSubstr("hf download Qwen/Qwen3-8B --local-dir Qwen3-8B"));
  EXPECT_THAT(text, HasSubstr("--model Qwen3-8B"));
  for (const char* path : {"/models/Qwen3-8B", "./models/q", "a/b/c", "demo", "a/", "/a", "../a"}) {
    const absl::Status status = check_model_folder(path);
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << path;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hf download"))) << path;
  }
}

TEST(ModelFolder, AFileIsNoFolder) {
  test::TempDir folder;
  EXPECT_TRUE(check_model_folder(folder.path()).ok());
  folder.write("q.gguf", "x");
  EXPECT_THAT(std::string(check_model_folder(folder.path() + "/q.gguf").message()),
              HasSubstr("is a file"));
}

std::string help() {
  testing::internal::CaptureStdout();
  parse({"--help"});
  return testing::internal::GetCapturedStdout();
}

TEST(CommandLine, HelpIsGrouped) {
  const std::string text = help();
  size_t at = 0;
  for (const char* group : {"General:", "Model:", "Device:", "Scheduler:", "Sparse attention:",
                            "Network:", "Logging:", "Examples:"}) {
    const size_t found = text.find(std::string("\n") + group, at);
    ASSERT_NE(found, std::string::npos) << group;
    at = found;
  }
  EXPECT_THAT(text, HasSubstr("PBSERVE_API_KEYS"));
}

TEST(CommandLine, HelpHasTheDefaultOfEveryFlag) {
  const std::string text = help();
  for (const char* line :
       {"HTTP port; 0 takes a free one [8000]", "largest HTTP body [64M]",
        "auto | cpu | cuda [auto]", "32768, 128k, auto [auto]", "share of the GPU's memory [0.9]",
        "equal prefixes [on]", "do not serve gRPC [off]", "address or name [127.0.0.1]",
        "finish after that [30]"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  // What has no default: the model, whole files, and what may be given several times.
  const std::vector<std::string> without = {"--help",  "--version", "--config",      "--set",
                                            "--model", "--api-key", "--hf-overrides"};
  std::istringstream lines(text.substr(0, text.find("\nExamples:")));
  std::string flag;  // its help may stand on the next line
  for (std::string line; std::getline(lines, line);) {
    const size_t dashes = line.find("--");
    const bool starts = dashes != std::string::npos && dashes < 6;
    if (starts) flag = line.substr(dashes, line.find(' ', dashes) - dashes);
    const bool has_help = line.size() > 36;
    if (flag.empty() || !has_help) continue;
    if (std::find(without.begin(), without.end(), flag) == without.end()) {
      EXPECT_EQ(line.back(), ']') << flag;
    }
    flag.clear();
  }
}

TEST(CommandLine, VersionNamesCommitDateAndBackends) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(parse({"--version"}).exit_code, 0);
  EXPECT_THAT(testing::internal::GetCapturedStdout(),
              testing::MatchesRegex("pbserve [0-9.]+\ncommit [0-9a-z-]+\nbuilt [0-9-]+\nCPU: "
                                    "[^\n]*-march=[^\n]+\nGPU: (no CUDA|CUDA [^\n]+)\n"));
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
