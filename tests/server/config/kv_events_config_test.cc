// --kv-events-config: a section of the config in one flag, and every refusal of its fields.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/config/command_line.h"
#include "server/config/config.h"
#include "server/kv_events/endpoint.h"

namespace pbserve::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<ServerConfig> load(const std::string& section,
                                  std::vector<ConfigOverride> overrides = {}) {
  overrides.push_back({"model.path", "some/folder"});
  overrides.push_back({"kv_events", section});
  return load_config("", overrides);
}

std::string refusal(const std::string& section, std::vector<ConfigOverride> overrides = {}) {
  const auto config = load(section, std::move(overrides));
  return config.ok() ? "(accepted)" : std::string(config.status().message());
}

TEST(KvEventsConfig, IsOffByDefault) {
  const KvEventsOptions options = load("{}")->kv_events;
  EXPECT_FALSE(options.enable_kv_cache_events);
  EXPECT_EQ(options.endpoint, "tcp://*:5557");
  EXPECT_EQ(options.replay_endpoint, "");
}

TEST(KvEventsConfig, IsWrittenAsForVllm) {
  const auto config = load(
      R"({"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:6000",)"
      R"( "replay_endpoint": "tcp://*:6001", "buffer_steps": 9, "hwm": 8, "max_queue_size": 7,)"
      R"( "topic": "kv@10.0.0.1@m"})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->kv_events.enable_kv_cache_events);
  EXPECT_EQ(config->kv_events.endpoint, "tcp://*:6000");
  EXPECT_EQ(config->kv_events.replay_endpoint, "tcp://*:6001");
  EXPECT_EQ(config->kv_events.buffer_steps, 9);
  EXPECT_EQ(config->kv_events.hwm, 8);
  EXPECT_EQ(config->kv_events.max_queue_size, 7);
  EXPECT_EQ(config->kv_events.topic, "kv@10.0.0.1@m");
}

TEST(KvEventsConfig, HasAFlag) {
  const char* const line[] = {"pbserve", "--model", "x", "--kv-events-config", R"({"hwm": 5})"};
  const CommandLineResult parsed = parse_command_line(std::size(line), line);
  ASSERT_TRUE(parsed.command_line);
  EXPECT_EQ(load_config("", parsed.command_line->overrides)->kv_events.hwm, 5);
}

TEST(KvEventsConfig, RefusalsNameFieldValueAndLimit) {
  EXPECT_THAT(refusal("on"), HasSubstr("kv_events = on: must be a JSON object"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("kv_events = [1]: must be a JSON object"));
  EXPECT_THAT(refusal(R"({"port": 1})"), HasSubstr("no key 'kv_events.port'"));
  EXPECT_THAT(refusal(R"({"publisher": "kafka"})"),
              HasSubstr("kv_events.publisher = \"kafka\": must be one of zmq, null"));
  EXPECT_THAT(refusal(R"({"hwm": 0})"),
              HasSubstr("kv_events.hwm = 0: must be an integer from 1 to 1048576"));
  EXPECT_THAT(refusal(R"({"buffer_steps": 0})"), HasSubstr("kv_events.buffer_steps = 0"));
  EXPECT_THAT(refusal(R"({"max_queue_size": 0})"), HasSubstr("kv_events.max_queue_size = 0"));
  EXPECT_THAT(refusal(R"({"replay_endpoint": "tcp://router:5558"})"),
              HasSubstr("kv_events.replay_endpoint = tcp://router:5558: must be of this machine"));
  EXPECT_THAT(refusal("{\"topic\": \"" + std::string(513, 't') + "\"}"),
              HasSubstr("kv_events.topic has 513 bytes, at most 512"));
  EXPECT_THAT(refusal(R"({"enable_kv_cache_events": true})",
                      {{"scheduler.enable_prefix_caching", "false"}}),
              AllOf(HasSubstr("kv_events.enable_kv_cache_events"),
                    HasSubstr("needs scheduler.enable_prefix_caching")));
}

TEST(KvEventsConfig, EndpointsAreCheckedBeforeAnySocket) {
  for (const char* right : {"tcp://*:5557", "tcp://127.0.0.1:*", "tcp://[::1]:1", "ipc:///tmp/x",
                            "tcp://router.llm-d:65535"}) {
    EXPECT_TRUE(check_endpoint("key", right).ok()) << right;
  }
  for (const std::string wrong :
       {"", "*:5557", "tcp://", "tcp://*", "tcp://:5557", "tcp://*:", "tcp://*:0", "tcp://*:65536",
        "tcp://*:-1", "tcp://*:5557x", "udp://*:5557", "inproc://x", "ipc://"}) {
    EXPECT_THAT(refusal("{\"endpoint\": \"" + wrong + "\"}"),
                HasSubstr("kv_events.endpoint = " + wrong + ": must be tcp://HOST:PORT"));
  }
  EXPECT_THAT(refusal("{\"endpoint\": \"ipc://" + std::string(108, 'p') + "\"}"),
              HasSubstr("at most 107 bytes"));
}

TEST(KvEventsConfig, ListensWhereVllmListensAndConnectsElsewhere) {
  for (const char* here : {"tcp://*:5557", "tcp://0.0.0.0:5557", "tcp://[::]:1", "tcp://[::1]:1",
                           "tcp://127.0.0.1:5557", "tcp://10.0.0.1:*", "ipc:///tmp/x"}) {
    EXPECT_TRUE(is_listening_endpoint(here)) << here;
  }
  for (const char* there : {"tcp://router:5557", "tcp://10.0.0.1:5557"}) {
    EXPECT_FALSE(is_listening_endpoint(there)) << there;
  }
  for (const char* local : {"tcp://127.0.0.1:5557", "tcp://[::1]:1", "ipc:///tmp/x"}) {
    EXPECT_TRUE(is_local_endpoint(local)) << local;
  }
  for (const char* open : {"tcp://*:5557", "tcp://0.0.0.0:1", "tcp://[::]:1"}) {
    EXPECT_FALSE(is_local_endpoint(open)) << open;
  }
}

}  // namespace
}  // namespace pbserve::server
