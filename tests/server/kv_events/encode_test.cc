// The bytes of KV events against those of vLLM's structures, and what one message takes.
#include "server/kv_events/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "server/json/body.h"
#include "server/kv_events/block_hash.h"

namespace pbserve::server {
namespace {

using engine::Tier;
using Kind = KvEvent::Kind;

// What make_messages_fixture.py wrote.
const Json& fixture() {
  static const Json kFixture = Json::parse(std::ifstream(
      std::string(PBSERVE_SOURCE_DIR) + "/tests/server/kv_events/fixtures/messages.json"));
  return kFixture;
}

std::shared_ptr<const KvEventSource> source(const std::string& topic, const std::string& salt) {
  return std::make_shared<const KvEventSource>(KvEventSource{.topic = topic, .salt = salt});
}

KvEvent event_of(const Json& block) {
  const std::map<std::string, Kind> kinds{
      {"stored", Kind::kStored}, {"removed", Kind::kRemoved}, {"cleared", Kind::kCleared}};
  return {.kind = kinds.at(block["kind"].get<std::string>()),
          .tier = block.value("tier", "device") == "host" ? Tier::kHost : Tier::kDevice,
          .hash = block.value("hash", uint64_t{0}),
          .parent = block.value("parent", uint64_t{0}),
          .tokens = block.value("tokens", std::vector<int32_t>{}),
          .source = source("kv@pod@demo", block.value("salt", ""))};
}

TEST(KvEventEncoding, IsThatOfTheReference) {
  ASSERT_GE(fixture()["messages"].size(), 9);
  for (const Json& message : fixture()["messages"]) {
    std::vector<KvEvent> events;
    for (const Json& block : message["blocks"]) events.push_back(event_of(block));
    EXPECT_EQ(absl::BytesToHexString(encode_kv_events(message["ts"].get<double>(), events)),
              message["payload"].get<std::string>())
        << message["name"];
  }
}

TEST(KvEventEncoding, SequenceNumbersAreBigEndian) {
  EXPECT_EQ(absl::BytesToHexString(sequence_frame(0x0102030405060708)), "0102030405060708");
  EXPECT_EQ(absl::BytesToHexString(sequence_frame(~uint64_t{0})), "ffffffffffffffff");
}

TEST(KvEventEncoding, AMessageIsOfOneTopicAndBounded) {
  std::vector<KvEvent> events(40, KvEvent{.tokens = {}, .source = source("a", "")});
  EXPECT_EQ(num_in_message(events), kKvBlocksPerMessage);
  events[3].source = source("b", "");
  EXPECT_EQ(num_in_message(events), 3);
  events[2] = {.kind = Kind::kLost, .tokens = {}, .source = nullptr};
  EXPECT_EQ(num_in_message(events), 2);
  events.resize(1);
  EXPECT_EQ(num_in_message(events), 1);
}

TEST(KvEventEncoding, TheLargestMessageStaysBelow32KB) {
  constexpr size_t kLongestSalt = 1024;
  KvEvent event{.hash = ~uint64_t{0},
                .tokens = std::vector<int32_t>(128, 1 << 30),
                .source = source("a", std::string(kLongestSalt, 's'))};
  const std::vector<KvEvent> events(kKvBlocksPerMessage, event);  // none continues another
  EXPECT_LT(encode_kv_events(0.1, events).size(), 32U << 10);
}

TEST(BlockHash, IsThatOfTheReference) {
  ASSERT_GE(fixture()["chains"].size(), 4);
  for (const Json& chain : fixture()["chains"]) {
    uint64_t parent =
        root_hash(chain["model"].get<std::string>(), chain["root"].get<std::string>());
    std::vector<uint64_t> hashes;
    for (const Json& page : chain["pages"]) {
      parent = block_hash(parent, page.get<std::vector<int32_t>>());
      hashes.push_back(parent);
    }
    EXPECT_EQ(hashes, chain["hashes"].get<std::vector<uint64_t>>()) << chain["root"];
  }
}

}  // namespace
}  // namespace pbserve::server
