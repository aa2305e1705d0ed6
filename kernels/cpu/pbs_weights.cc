#include "kernels/cpu/pbs_weights.h"

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr int64_t kTileColumns = 64;        // key groups scored at once
constexpr int64_t kGroupsPerBlockMax = 16;  // at the smallest stride, 8; a multiple of kLanes

}  // namespace

PbsBlockWeights& PbsBlockWeights::of_this_thread() {
  thread_local PbsBlockWeights weights;
  return weights;
}

float* PbsBlockWeights::query_group(int64_t head_in_group, int64_t group_idx) {
  return queries_.data() + (head_in_group * num_groups_ + group_idx) * (group_len_ * dim_ + kLanes);
}

template <class T>
void PbsBlockWeights::pack_means(const PbsSelectArgs& args, int64_t kv_head, const Tensor& q) {
  const float scale = args.scale / static_cast<float>(q.dim(0));
  for (int64_t g = 0; g < num_heads_; ++g) {
    const T* from = q.as<T>() + (kv_head * num_heads_ + g) * q.stride[1];
    float* to = query_group(g, 0);
    for (int64_t d = 0; d < dim_; d += kLanes) {
      Vec total = {};
      for (int64_t i = 0; i < q.dim(0); ++i) total += load(from + i * q.stride[0] + d);
      store(to + d, total * scale);
    }
  }
}

// A group holds its queries in reverse, so that one long product with `stride` consecutive keys
// sums the antidiagonal. A last group cut short holds zeros for the queries that do not exist, and
// its scale counts those that do.
template <class T>
void PbsBlockWeights::pack_groups(const PbsSelectArgs& args, int64_t kv_head, const Tensor& q) {
  for (int64_t g = 0; g < num_heads_; ++g) {
    const T* from = q.as<T>() + (kv_head * num_heads_ + g) * q.stride[1];
    for (int64_t m = 0; m < num_groups_; ++m) {
      const int64_t num_tokens = std::min(group_len_, q.dim(0) - m * group_len_);
      const float scale = args.scale / static_cast<float>(num_tokens);
      float* to = query_group(g, m);
      for (int64_t r = 0; r < group_len_; ++r) {
        const int64_t token = group_len_ - 1 - r;
        const T* query = from + (m * group_len_ + token) * q.stride[0];
        for (int64_t d = 0; d < dim_; d += kLanes) {
          store(to + r * dim_ + d, token < num_tokens ? load(query + d) * scale : Vec{});
        }
      }
    }
  }
}

// Key group n is the group_len_ rows of D from keys + n group_len_ D on.
template <class K>
void PbsBlockWeights::score(const K* keys, int64_t key_groups_per_block) {
  const int64_t num_key_groups = num_candidates_ * key_groups_per_block;
  const int64_t group_size = group_len_ * dim_;
  const int64_t num_rows = num_heads_ * num_groups_;
  float* tile = keys_.at_least(dim_ * kTileColumns);
  float* scores = scores_.at_least(num_rows * kTileColumns);
  for (int64_t n = 0; n < num_key_groups; n += kTileColumns) {
    const int64_t columns = std::min(kTileColumns, num_key_groups - n);
    for (int64_t r = 0; r < group_len_; ++r) {
      transpose(tile, kTileColumns, keys + n * group_size + r * dim_, group_size, columns, dim_);
      matmul(scores, kTileColumns, queries_.data() + r * dim_, group_size + kLanes, tile,
             kTileColumns, num_rows, columns, dim_,
             r == 0 ? Accumulate::kOverwrite : Accumulate::kAdd);
    }
    reduce_tile(n, columns, key_groups_per_block);
  }
}

void PbsBlockWeights::reduce_tile(int64_t first_group, int64_t num_groups,
                                  int64_t key_groups_per_block) {
  const int64_t columns = align_up<int64_t>(key_groups_per_block, kLanes);
  for (int64_t row = 0; row < num_heads_ * num_groups_; ++row) {
    for (int64_t n = 0; n < num_groups; n += key_groups_per_block) {
      alignas(64) float block_scores[kGroupsPerBlockMax] = {};
      std::copy_n(scores_.data() + row * kTileColumns + n, key_groups_per_block, block_scores);
      SoftmaxState state;
      softmax_step(state, block_scores, key_groups_per_block, columns);
      const int64_t j = (first_group + n) / key_groups_per_block;
      tops_.data()[row * padded_ + j] = state.top;
      sums_.data()[row * padded_ + j] = state.sum;
    }
  }
}

template <class T>
void PbsBlockWeights::compute(const PbsSelectArgs& args, int64_t block, int64_t kv_head,
                              int64_t num_candidates) {
  const Tensor q = args.q.rows(block * kPbsBlock,
                               std::min<int64_t>((block + 1) * kPbsBlock, args.span.num_rows()));
  const bool is_mean = args.params.scorer == PbsScorer::kMean;
  dim_ = q.dim(2);
  num_heads_ = q.dim(1) / args.plan.k.dim(0);
  num_candidates_ = num_candidates;
  padded_ = align_up<int64_t>(num_candidates, kLanes);
  group_len_ = is_mean ? 1 : args.params.stride;
  num_groups_ = is_mean ? 1 : ceil_div(q.dim(0), group_len_);
  const int64_t num_rows = num_heads_ * num_groups_;
  queries_.at_least(num_rows * (group_len_ * dim_ + kLanes));
  std::fill_n(tops_.at_least(num_rows * padded_), num_rows * padded_, kMinusInfinity);
  std::fill_n(sums_.at_least(num_rows * padded_), num_rows * padded_, 0.f);
  if (is_mean) {
    pack_means<T>(args, kv_head, q);
    score(args.plan.k_pooled.at(kv_head).template as<float>(), 1);
  } else {
    pack_groups<T>(args, kv_head, q);
    score(args.plan.k.at(kv_head).template as<T>(), kPbsBlock / group_len_);
  }
}

const float* PbsBlockWeights::of_head(int64_t head_in_group) {
  float* weights = weights_.at_least(padded_);
  std::fill_n(weights, padded_, 0.f);
  for (int64_t m = 0; m < num_groups_; ++m) {
    const int64_t row = head_in_group * num_groups_ + m;
    float* masses = tops_.data() + row * padded_;
    const float* sums = sums_.data() + row * padded_;
    const float top = *std::max_element(masses, masses + num_candidates_);
    Vec total = {};
    for (int64_t j = 0; j < padded_; j += kLanes) {
      const Vec mass = exp(load(masses + j) - top) * load(sums + j);
      store(masses + j, mass);
      total += mass;
    }
    const float share = 1.f / (sum(total) * static_cast<float>(num_groups_));
    for (int64_t j = 0; j < padded_; j += kLanes) {
      store(weights + j, load(weights + j) + load(masses + j) * share);
    }
  }
  return weights;
}

template void PbsBlockWeights::compute<float>(const PbsSelectArgs&, int64_t, int64_t, int64_t);
template void PbsBlockWeights::compute<BF16>(const PbsSelectArgs&, int64_t, int64_t, int64_t);

}  // namespace pbserve::kernels::cpu
