#include "engine/batch_builder.h"

#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/sample.h"

namespace pbserve::engine {

using kernels::kMaxBannedIds;
using kernels::kPageSize;

namespace {

int64_t kv_slot(const Sequence& sequence, int64_t position) {
  const auto page = static_cast<int32_t>(position / kPageSize);
  check(page < sequence.blocks.num_pages(), "a token without a page");
  return static_cast<int64_t>(sequence.blocks.page(page)) * kPageSize + position % kPageSize;
}

void append_block_table(const Sequence& sequence, int64_t pages_max, std::vector<int32_t>& tables) {
  const std::span<const int32_t> pages = sequence.blocks.pages();
  check(static_cast<int64_t>(pages.size()) <= pages_max, "more pages than the context limit needs");
  tables.insert(tables.end(), pages.begin(), pages.end());
  tables.insert(tables.end(), static_cast<size_t>(pages_max) - pages.size(), -1);
}

void pad_slots(std::vector<int32_t>& slots, size_t num_rows, int32_t padding_slot) {
  while (slots.size() < num_rows) {
    slots.push_back(padding_slot + static_cast<int32_t>(slots.size()));
  }
}

}  // namespace

DecodeBatch build_decode_batch(std::span<const DecodeRow> rows, const SequenceMap& sequences,
                               int64_t pages_max) {
  DecodeBatch batch;
  batch.pages_max = pages_max;
  for (const DecodeRow& row : rows) {
    const Sequence& sequence = *sequences.at(row.id);
    batch.sequence_slots.push_back(sequence.slot);
    batch.positions.push_back(static_cast<int32_t>(row.position));
    batch.kv_slots.push_back(kv_slot(sequence, row.position));
    batch.context_lens.push_back(static_cast<int32_t>(row.position) + 1);
    append_block_table(sequence, pages_max, batch.block_tables);
  }
  return batch;
}

void pad(DecodeBatch& batch, int64_t num_rows, int32_t padding_slot) {
  const auto size = static_cast<size_t>(num_rows);
  pad_slots(batch.sequence_slots, size, padding_slot);
  batch.positions.resize(size, 0);
  batch.kv_slots.resize(size, -1);
  batch.context_lens.resize(size, 0);
  batch.block_tables.resize(size * static_cast<size_t>(batch.pages_max), -1);
}

PrefillBatch build_prefill_batch(std::span<const PrefillChunk> chunks, const SequenceMap& sequences,
                                 int64_t pages_max) {
  PrefillBatch batch;
  for (const PrefillChunk& chunk : chunks) {
    const Sequence& sequence = *sequences.at(chunk.id);
    check(chunk.end <= sequence.num_known(), "prefill of tokens that are not read back");
    for (int64_t position = chunk.begin; position < chunk.end; ++position) {
      batch.ids.push_back(sequence.tokens()[position]);
      batch.positions.push_back(static_cast<int32_t>(position));
      batch.kv_slots.push_back(kv_slot(sequence, position));
    }
    append_block_table(sequence, pages_max, batch.block_tables);
  }
  return batch;
}

SampleBatch build_sample_batch(std::span<const DrawRow> rows) {
  SampleBatch batch;
  for (const auto& [sequence, position] : rows) {
    const SequenceSpec& spec = sequence->spec();
    batch.sequence_slots.push_back(sequence->slot);
    batch.temperature.push_back(spec.sampling.temperature);
    batch.top_p.push_back(spec.sampling.top_p);
    batch.min_p.push_back(spec.sampling.min_p);
    batch.top_k.push_back(spec.sampling.top_k);
    batch.seeds.push_back(spec.sampling.seed);
    batch.positions.push_back(static_cast<int32_t>(position));
    const bool may_stop = position >= spec.num_tokens_min;
    const size_t num_banned = may_stop ? 0 : spec.stop_ids.size();
    check(num_banned <= kMaxBannedIds, "more stop ids than the sampler bans");
    batch.banned.insert(batch.banned.end(), spec.stop_ids.begin(),
                        spec.stop_ids.begin() + static_cast<std::ptrdiff_t>(num_banned));
    batch.banned.insert(batch.banned.end(), kMaxBannedIds - num_banned, -1);
  }
  return batch;
}

void pad(SampleBatch& batch, int64_t num_rows, int32_t padding_slot) {
  const auto size = static_cast<size_t>(num_rows);
  pad_slots(batch.sequence_slots, size, padding_slot);
  batch.temperature.resize(size, 0.0f);
  batch.top_p.resize(size, 1.0f);
  batch.min_p.resize(size, 0.0f);
  batch.top_k.resize(size, 0);
  batch.seeds.resize(size, 0);
  batch.positions.resize(size, 0);
  batch.banned.resize(size * kMaxBannedIds, -1);
}

}  // namespace pbserve::engine
