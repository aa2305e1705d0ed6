// Which permuted key blocks a query block attends to: bits of the plan's mask.

#include <algorithm>
#include <atomic>
#include <bit>
#include <vector>

#include "kernels/core/bits.h"
#include "kernels/cpu/pbs_weights.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {
namespace {

void take(uint32_t* words, int64_t j) { words[j / 32] |= uint32_t{1} << (j % 32); }

// Heaviest first until the cumulative weight reaches the threshold. Weights are not negative, so
// their bits compare as they do; below them the complement of the block puts the lower one first.
void take_top_p(const float* weights, int64_t count, float threshold, uint32_t* words) {
  thread_local std::vector<uint64_t> heap;
  heap.clear();
  for (int64_t j = 0; j < count; ++j) {
    heap.push_back(uint64_t{std::bit_cast<uint32_t>(weights[j])} << 32 | ~static_cast<uint32_t>(j));
  }
  std::make_heap(heap.begin(), heap.end());
  double cumulative = 0;
  while (!heap.empty() && (cumulative < threshold || threshold >= 1.f)) {
    std::pop_heap(heap.begin(), heap.end());
    const auto j = static_cast<int64_t>(~static_cast<uint32_t>(heap.back()));
    heap.pop_back();
    take(words, j);
    cumulative += weights[j];
  }
}

void take_max_ratio(const float* weights, int64_t count, float threshold, uint32_t* words) {
  const float least = threshold * *std::max_element(weights, weights + count);
  for (int64_t j = 0; j < count; ++j) {
    if (weights[j] >= least) take(words, j);
  }
}

// The permuted block that holds token 0.
int64_t first_token_block(const PbsSelectArgs& args, int64_t kv_head) {
  const Tensor row = args.plan.order.at(kv_head);
  const uint8_t* order = row.as<uint8_t>();
  return (std::find(order, order + args.params.segment, uint8_t{0}) - order) / kPbsBlock;
}

template <class T>
int64_t select_block(const PbsSelectArgs& args, int64_t block, int64_t kv_head) {
  const int64_t block_idx = args.span.begin / kPbsBlock + block;
  const int64_t num_candidates = align_down<int64_t>(block_idx, args.params.segment / kPbsBlock);
  const int64_t num_own = block_idx - num_candidates + 1;
  const int64_t group = args.q.dim(1) / args.plan.k.dim(0);
  const Tensor& mask = args.plan.mask;
  PbsBlockWeights& weights = PbsBlockWeights::of_this_thread();
  if (num_candidates > 0) weights.compute<T>(args, block, kv_head, num_candidates);

  int64_t num_attended = 0;
  for (int64_t g = 0; g < group; ++g) {
    uint32_t* words =
        mask.as<uint32_t>() + (kv_head * group + g) * mask.stride[0] + block * mask.stride[1];
    std::fill_n(words, mask.dim(2), 0u);
    num_attended += num_own;
    if (num_candidates == 0) continue;
    const auto choose = args.params.selector == PbsSelector::kTopP ? take_top_p : take_max_ratio;
    choose(weights.of_head(g), num_candidates, args.params.threshold, words);
    take(words, first_token_block(args, kv_head));
    for (int64_t i = 0; i < mask.dim(2); ++i) num_attended += std::popcount(words[i]);
  }
  return num_attended;
}

template <class T>
void select(const PbsSelectArgs& args, ThreadPool& pool) {
  const int64_t num_kv_heads = args.plan.k.dim(0);
  const int64_t num_blocks = args.block_end - args.block_begin;
  const std::atomic_ref<int64_t> num_selected(*args.num_selected.as<int64_t>());
  pool.parallel_for(num_blocks * num_kv_heads, [&](int64_t item) {
    num_selected +=
        select_block<T>(args, args.block_end - 1 - item / num_kv_heads, item % num_kv_heads);
  });
}

}  // namespace

void pbs_select(const PbsSelectArgs& args, ThreadPool& pool) {
  args.q.dtype == DType::kBF16 ? select<BF16>(args, pool) : select<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
