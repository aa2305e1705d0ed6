// KV events on the wire, as vLLM's publisher writes them (vllm/distributed/kv_events.py) and
// llm-d's router reads them: msgpack of [ts, events, dp_rank], each event an array that begins with
// its name.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "server/kv_events/event.h"

namespace pbserve::server {

// Blocks in one message, which so stays below 32 KB: a bound for every buffer of messages.
inline constexpr size_t kKvBlocksPerMessage = 16;

// How many events, from the first on, one message takes: those of one topic, and no more blocks
// than a message may have. REQUIRES: `events` is not empty, the first is not kLost.
size_t num_in_message(std::span<const KvEvent> events);

// ["BlockStored", hashes, parent, token_ids, block_size, lora_id, medium, lora_name, extra_keys]
// for blocks that continue each other; extra_keys has the salt of a chain's first block, or is nil.
// ["BlockRemoved", hashes, medium]; ["AllBlocksCleared"]. `ts` is Unix time.
std::string encode_kv_events(double ts, std::span<const KvEvent> events);

// A sequence number as a frame: eight bytes, big-endian.
std::string sequence_frame(uint64_t sequence);

}  // namespace pbserve::server
