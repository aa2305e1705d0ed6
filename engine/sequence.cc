#include "engine/sequence.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace pbserve::engine {

void BlockCounts::add(const BlockCounts& other) {
  attended.resize(std::max(attended.size(), other.attended.size()));
  causal.resize(attended.size());
  for (size_t layer = 0; layer < other.attended.size(); ++layer) {
    attended[layer] += other.attended[layer];
    causal[layer] += other.causal[layer];
  }
}

void CoverageSums::add(const CoverageSums& other) {
  num_heads = std::max(num_heads, other.num_heads);
  sums.resize(std::max(sums.size(), other.sums.size()));
  num_rows.resize(std::max(num_rows.size(), other.num_rows.size()));
  for (size_t i = 0; i < other.sums.size(); ++i) sums[i] += other.sums[i];
  for (size_t i = 0; i < other.num_rows.size(); ++i) num_rows[i] += other.num_rows[i];
}

Sequence::Sequence(SequenceSpec spec)
    : spec_(std::move(spec)), tokens_(spec_.prompt), num_tokens_(num_known()) {
  check(!spec_.prompt.empty(), "sequence without a prompt");
  check(num_tokens_ < spec_.num_tokens_max, "sequence without room for one token");
}

void Sequence::start_prefill(int64_t num_cached, int32_t sequence_slot) {
  check(phase == Phase::kWaiting && !has_token_in_flight(), "prefill of a running sequence");
  phase = Phase::kPrefill;
  slot = sequence_slot;
  num_cached_ = num_cached;
  num_computed_ = num_cached;
  check_lengths();
}

void Sequence::stop_running() {
  phase = Phase::kWaiting;
  slot = -1;
  blocks.clear();
  num_cached_ = 0;
  num_computed_ = 0;
}

void Sequence::advance_computed(int64_t num_computed) {
  check(num_computed >= num_computed_, "computed tokens cannot become fewer");
  num_computed_ = num_computed;
  check_lengths();
}

void Sequence::expect_token() {
  check(num_tokens_ - num_known() < 2, "two tokens in flight already");
  ++num_tokens_;
  check_lengths();
}

void Sequence::append_token(int32_t token) {
  check(has_token_in_flight(), "a token nobody expected");
  tokens_.push_back(token);
}

bool Sequence::is_stop(int32_t token) const {
  return std::ranges::find(spec_.stop_ids, token) != spec_.stop_ids.end();
}

void Sequence::check_lengths() const {
  check(num_cached_ <= num_computed_, "num_cached above num_computed");
  check(num_computed_ <= num_tokens_, "num_computed above num_tokens");
  check(num_tokens_ <= spec_.num_tokens_max, "num_tokens above its limit");
}

}  // namespace pbserve::engine
