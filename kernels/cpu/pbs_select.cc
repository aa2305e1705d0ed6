// Which pages of earlier segments a query block attends to: bits of the plan's mask.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/core/bits.h"
#include "kernels/cpu/pbs_mass.h"
#include "kernels/cpu/pbs_weights.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {
namespace {

void take(uint32_t* words, int64_t j) { words[j / 32] |= uint32_t{1} << (j % 32); }

// Heaviest first until the cumulative weight reaches `target`. Weights are not negative, so their
// bits compare as they do; below them the complement of the block puts the lower one first.
void take_top_p(const float* weights, int64_t count, double target, uint32_t* words) {
  thread_local std::vector<uint64_t> heap;
  heap.clear();
  for (int64_t j = 0; j < count; ++j) {
    heap.push_back(uint64_t{std::bit_cast<uint32_t>(weights[j])} << 32 | ~static_cast<uint32_t>(j));
  }
  std::make_heap(heap.begin(), heap.end());
  double cumulative = 0;
  while (!heap.empty() && cumulative < target) {
    std::pop_heap(heap.begin(), heap.end());
    const auto j = static_cast<int64_t>(~static_cast<uint32_t>(heap.back()));
    heap.pop_back();
    take(words, j);
    cumulative += weights[j];
  }
}

void take_max_ratio(const float* weights, int64_t count, float threshold, uint32_t* words) {
  const float most = *std::max_element(weights, weights + count);
  if (most == 0.f) return;
  for (int64_t j = 0; j < count; ++j) {
    if (weights[j] >= threshold * most) take(words, j);
  }
}

void take_error_bound(const float* weights, int64_t count, float threshold, uint32_t* words) {
  const float least = (1.f - threshold) / std::sqrt(static_cast<float>(count));
  for (int64_t j = 0; j < count; ++j) {
    if (weights[j] >= least) take(words, j);
  }
}

// The candidates of one query block that are taken whatever they weigh.
struct Always {
  int64_t sink_end;     // [0, sink_end)
  int64_t local_begin;  // [local_begin, count)

  Always(const PbsParams& params, int64_t count)
      : sink_end(std::min<int64_t>(params.sink, count)),
        local_begin(
            std::max<int64_t>(0, count - int64_t{params.local} * (params.segment / kPbsBlock))) {}
};

void choose(float* weights, int64_t count, const PbsParams& params, uint32_t* words) {
  const Always always(params, count);
  const auto for_each_always = [&](const auto& body) {
    for (int64_t j = 0; j < always.sink_end; ++j) body(j);
    for (int64_t j = always.local_begin; j < count; ++j) body(j);
  };
  double budget = 1;  // what the weights add up to, of scorers where they do
  if (params.sink_free) {
    for_each_always([&](int64_t j) { weights[j] = 0.f; });
    budget = 0;
    for (int64_t j = 0; j < count; ++j) budget += weights[j];
  }
  switch (params.selector) {
    case PbsSelector::kErrorBound:
      take_error_bound(weights, count, params.threshold, words);
      break;
    case PbsSelector::kTopP:
      take_top_p(weights, count, params.threshold * budget, words);
      break;
    case PbsSelector::kMaxRatio:
      take_max_ratio(weights, count, params.threshold, words);
      break;
  }
  for_each_always([&](int64_t j) { take(words, j); });
}

// `Weights` is the scorer's class: PbsBlockMasses or PbsBlockWeights.
template <class T, class Weights>
int64_t select_block(const PbsInput& in, int64_t block, int64_t kv_head) {
  const int64_t block_idx = in.job.begin / kPbsBlock + block;
  const int64_t count = align_down<int64_t>(block_idx, in.params.segment / kPbsBlock);
  const bool is_tail = block_idx >= first_tail_block(in.job.prompt_len, in.params.dense_tail);
  const bool takes_all = is_tail || takes_every_block(in.params);
  const int64_t group = in.q.dim(1) / in.pages.k.dim(1);
  const Tensor& mask = in.plan.mask;
  Weights& weights = Weights::of_this_thread();
  if (count > 0 && !takes_all) weights.template compute<T>(in, block, kv_head, count);

  int64_t num_attended = 0;
  for (int64_t g = 0; g < group; ++g) {
    uint32_t* words =
        mask.as<uint32_t>() + (kv_head * group + g) * mask.stride[0] + block * mask.stride[1];
    std::fill_n(words, mask.dim(2), 0u);
    if (takes_all) {
      for (int64_t j = 0; j < count; ++j) take(words, j);
    } else if (count > 0) {
      choose(weights.of_head(g), count, in.params, words);
    }
    num_attended += block_idx - count + 1;
    for (int64_t i = 0; i < mask.dim(2); ++i) num_attended += std::popcount(words[i]);
  }
  return num_attended;
}

template <class T, class Weights>
void select_blocks(const PbsSelectArgs& args, ThreadPool& pool) {
  const int64_t num_kv_heads = args.input.pages.k.dim(1);
  const int64_t num_blocks = args.block_end - args.block_begin;
  const std::atomic_ref<int64_t> num_selected(*args.num_selected.as<int64_t>());
  pool.parallel_for(num_blocks * num_kv_heads, [&](int64_t item) {
    num_selected += select_block<T, Weights>(args.input, args.block_end - 1 - item / num_kv_heads,
                                             item % num_kv_heads);
  });
}

template <class T>
void select(const PbsSelectArgs& args, ThreadPool& pool) {
  args.input.params.scorer == PbsScorer::kMass ? select_blocks<T, PbsBlockMasses>(args, pool)
                                               : select_blocks<T, PbsBlockWeights>(args, pool);
}

}  // namespace

void pbs_select(const PbsSelectArgs& args, ThreadPool& pool) {
  args.input.q.dtype == DType::kBF16 ? select<BF16>(args, pool) : select<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
