// From sequences to the arrays one forward pass reads. Pure functions of host data.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sequence.h"
#include "engine/step.h"

namespace pbserve::engine {

// One row per generating sequence; arrays are [B] unless said otherwise.
struct DecodeBatch {
  int64_t pages_max = 0;                // width of the block tables
  std::vector<int32_t> sequence_slots;  // where the row's input token lies on the device
  std::vector<int32_t> positions;       // of the input token
  std::vector<int64_t> kv_slots;        // where its K/V go: page * kPageSize + offset
  std::vector<int32_t> context_lens;    // positions + 1
  std::vector<int32_t> block_tables;    // [B, pages_max]; -1 past a sequence's pages
};

DecodeBatch build_decode_batch(std::span<const DecodeRow> rows, const SequenceMap& sequences,
                               int64_t pages_max);

// Adds rows without a sequence up to `num_rows`: they read and write no page. Row i has the slot
// padding_slot + i.
void pad(DecodeBatch& batch, int64_t num_rows, int32_t padding_slot);

// The rows of a prefill job, chunk after chunk; arrays are [T] unless said otherwise.
struct PrefillBatch {
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
  std::vector<int64_t> kv_slots;
  std::vector<int32_t> block_tables;  // [chunks, pages_max]; -1 past a sequence's pages
};

PrefillBatch build_prefill_batch(std::span<const PrefillChunk> chunks, const SequenceMap& sequences,
                                 int64_t pages_max);

// What the draw of the next token needs; arrays are [B] unless said otherwise.
struct SampleBatch {
  std::vector<int32_t> sequence_slots;  // where the token is written
  std::vector<float> temperature;
  std::vector<float> top_p;
  std::vector<float> min_p;
  std::vector<int32_t> top_k;
  std::vector<uint64_t> seeds;
  std::vector<int32_t> positions;  // of the token to draw
  std::vector<int32_t> banned;     // [B, kMaxBannedIds]; ends of text before min_tokens, then -1
};

struct DrawRow {
  const Sequence* sequence;
  int64_t position;  // of the token to draw
};

SampleBatch build_sample_batch(std::span<const DrawRow> rows);

// As above; the rows added draw greedily.
void pad(SampleBatch& batch, int64_t num_rows, int32_t padding_slot);

}  // namespace pbserve::engine
