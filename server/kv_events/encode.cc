#include "server/kv_events/encode.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/core/status.h"
#include "server/json/body.h"

namespace pbserve::server {
namespace {

using engine::Tier;
using Kind = KvEvent::Kind;

const char* medium(Tier tier) {
  // vLLM's words: what the model computes on is the GPU to a router, whatever the device.
  return tier == Tier::kDevice ? "GPU" : "CPU";
}

// Whether `next` may stand in one event with the block before it.
bool continues(const KvEvent& block, const KvEvent& next) {
  if (next.kind != block.kind || next.tier != block.tier) return false;
  if (block.kind == Kind::kRemoved) return true;
  return block.kind == Kind::kStored && next.parent == block.hash;
}

Json hashes_of(std::span<const KvEvent> blocks) {
  Json hashes = Json::array();
  for (const KvEvent& block : blocks) hashes.push_back(block.hash);
  return hashes;
}

// As vLLM has it, the salt stands with the first block of a chain, and with none behind it.
Json extra_keys(std::span<const KvEvent> blocks) {
  if (blocks.front().parent != 0 || blocks.front().source->salt.empty()) return nullptr;
  Json keys = Json::array();
  keys.push_back(Json::array({blocks.front().source->salt}));
  for (size_t i = 1; i < blocks.size(); ++i) keys.push_back(nullptr);
  return keys;
}

Json stored(std::span<const KvEvent> blocks) {
  Json tokens = Json::array();
  for (const KvEvent& block : blocks) {
    for (const int32_t token : block.tokens) tokens.push_back(token);
  }
  const KvEvent& first = blocks.front();
  return Json::array({"BlockStored", hashes_of(blocks),
                      first.parent == 0 ? Json() : Json(first.parent), std::move(tokens),
                      first.tokens.size(), nullptr, medium(first.tier), nullptr,
                      extra_keys(blocks)});
}

Json event_of(std::span<const KvEvent> blocks) {
  switch (blocks.front().kind) {
    case Kind::kStored:
      return stored(blocks);
    case Kind::kRemoved:
      return Json::array({"BlockRemoved", hashes_of(blocks), medium(blocks.front().tier)});
    case Kind::kCleared:
    case Kind::kLost:
      break;
  }
  return Json::array({"AllBlocksCleared"});
}

}  // namespace

size_t num_in_message(std::span<const KvEvent> events) {
  const size_t limit = std::min(events.size(), kKvBlocksPerMessage);
  size_t count = 1;
  while (count < limit && events[count].kind != Kind::kLost &&
         events[count].source->topic == events[0].source->topic) {
    ++count;
  }
  return count;
}

std::string encode_kv_events(double ts, std::span<const KvEvent> events) {
  Json list = Json::array();
  size_t begin = 0;
  while (begin < events.size()) {
    size_t end = begin + 1;
    while (end < events.size() && continues(events[end - 1], events[end])) ++end;
    list.push_back(event_of(events.subspan(begin, end - begin)));
    begin = end;
  }
  constexpr int kDataParallelRank = 0;
  std::string bytes;
  Json::to_msgpack(Json::array({ts, std::move(list), kDataParallelRank}), bytes);
  return bytes;
}

std::string sequence_frame(uint64_t sequence) {
  std::string frame;
  for (int shift = 56; shift >= 0; shift -= 8)
    frame.push_back(static_cast<char>(sequence >> shift));
  return frame;
}

}  // namespace pbserve::server
