#include "kernels/cpu/pbs_weights.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/bits.h"
#include "kernels/cpu/page_moments.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/cpu/softmax_row.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"

namespace pbserve::kernels::cpu {
namespace {

constexpr int64_t kTileColumns = 64;  // key vectors multiplied at once

}  // namespace

PbsBlockWeights& PbsBlockWeights::of_this_thread() {
  thread_local PbsBlockWeights weights;
  return weights;
}

// One Vec more than the vectors take, so that it is no multiple of 256 floats (tile.h).
int64_t PbsBlockWeights::query_stride() const { return group_len_ * dim_ + kLanes; }

float* PbsBlockWeights::query_group(int64_t head_in_group, int64_t group_idx) {
  return queries_.data() + (head_in_group * num_groups_ + group_idx) * query_stride();
}

template <class T>
void PbsBlockWeights::pack_means(const Tensor& q, int64_t kv_head, float scale) {
  const float share = scale / static_cast<float>(q.dim(0));
  for (int64_t g = 0; g < num_heads_; ++g) {
    const T* from = q.as<T>() + (kv_head * num_heads_ + g) * q.stride[1];
    for (int64_t d = 0; d < dim_; d += kLanes) {
      Vec total = {};
      for (int64_t i = 0; i < q.dim(0); ++i) total += load(from + i * q.stride[0] + d);
      store(query_group(g, 0) + d, total * share);
    }
  }
}

// A group holds its queries in reverse, so that one long product with as many consecutive keys sums
// the antidiagonal. A last group cut short holds zeros for the queries that do not exist, and its
// scale counts those that do.
template <class T>
void PbsBlockWeights::pack_groups(const Tensor& q, int64_t kv_head, float scale) {
  for (int64_t g = 0; g < num_heads_; ++g) {
    const T* from = q.as<T>() + (kv_head * num_heads_ + g) * q.stride[1];
    for (int64_t m = 0; m < num_groups_; ++m) {
      const int64_t num_tokens = std::min(group_len_, q.dim(0) - m * group_len_);
      const float share = scale / static_cast<float>(num_tokens);
      for (int64_t r = 0; r < group_len_; ++r) {
        const int64_t token = group_len_ - 1 - r;
        const T* query = from + (m * group_len_ + token) * q.stride[0];
        for (int64_t d = 0; d < dim_; d += kLanes) {
          store(query_group(g, m) + r * dim_ + d,
                token < num_tokens ? load(query + d) * share : Vec{});
        }
      }
    }
  }
}

// All query groups' member `member` times the keys of the tile, into scores (added from the second
// member on).
void PbsBlockWeights::multiply(float* scores, int64_t stride, int64_t columns, int64_t member) {
  matmul(scores, stride, queries_.data() + member * dim_, query_stride(), keys_.data(),
         kTileColumns, num_rows(), columns, dim_,
         member == 0 ? Accumulate::kOverwrite : Accumulate::kAdd);
}

// Mean keys: a block is one key group, and its score is its log mass.
template <class T>
void PbsBlockWeights::score_means(const PbsInput& input, int64_t kv_head) {
  const int32_t* pages = input.block_table.as<int32_t>();
  for (int64_t first = 0; first < num_candidates_; first += kTileColumns) {
    const int64_t count = std::min(kTileColumns, num_candidates_ - first);
    load_per_page<T>(keys_.data(), kTileColumns, input.pages.k_mean, kv_head, pages + first, count);
    multiply(log_masses_.data() + first, padded_, align_up<int64_t>(count, kLanes), 0);
  }
}

template <class T>
void PbsBlockWeights::score_groups(const PbsInput& input, int64_t kv_head) {
  const PagedKeys<T> pages(input.pages.k, input.pages.v, input.block_table.as<int32_t>());
  const int64_t key_groups = kPbsBlock / group_len_;  // at most kLanes: the stride is 8 or more
  for (int64_t block = 0; block < num_candidates_; ++block) {
    const T* keys = pages.k(block, kv_head);
    for (int64_t r = 0; r < group_len_; ++r) {
      transpose(keys_.data(), kTileColumns, keys + r * dim_, group_len_ * dim_, key_groups, dim_);
      multiply(scores_.data(), kTileColumns, align_up<int64_t>(key_groups, kLanes), r);
    }
    reduce_block(block, key_groups);
  }
}

void PbsBlockWeights::reduce_block(int64_t block, int64_t key_groups) {
  for (int64_t row = 0; row < num_rows(); ++row) {
    SoftmaxState state;
    softmax_step(state, scores_.data() + row * kTileColumns, key_groups,
                 align_up<int64_t>(key_groups, kLanes));
    log_masses_.data()[row * padded_ + block] = state.top + std::log(state.sum);
  }
}

template <class T>
void PbsBlockWeights::compute(const PbsInput& input, int64_t block, int64_t kv_head,
                              int64_t num_candidates) {
  const Tensor q = input.q.rows(block * kPbsBlock,
                                std::min<int64_t>((block + 1) * kPbsBlock, input.job.num_rows()));
  const PbsScorer scorer = input.params.scorer;
  dim_ = q.dim(2);
  num_heads_ = q.dim(1) / input.pages.k.dim(1);
  num_candidates_ = num_candidates;
  padded_ = align_up<int64_t>(num_candidates, kTileColumns);
  group_len_ = scorer == PbsScorer::kAntidiagonal ? input.params.stride : 1;
  num_groups_ = scorer == PbsScorer::kMean ? 1 : ceil_div(q.dim(0), group_len_);
  queries_.at_least(num_rows() * query_stride());
  keys_.at_least(dim_ * kTileColumns);
  scores_.at_least(num_rows() * kTileColumns);
  log_masses_.at_least(num_rows() * padded_);
  if (scorer == PbsScorer::kMean) {
    pack_means<T>(q, kv_head, input.scale);
  } else {
    pack_groups<T>(q, kv_head, input.scale);
  }
  if (scorer == PbsScorer::kAntidiagonal) {
    score_groups<T>(input, kv_head);
  } else {
    score_means<T>(input, kv_head);
  }
}

float* PbsBlockWeights::of_head(int64_t head_in_group) {
  const int64_t columns = align_up<int64_t>(num_candidates_, kLanes);
  float* weights = weights_.at_least(columns);
  std::fill_n(weights, columns, 0.f);
  for (int64_t m = 0; m < num_groups_; ++m) {
    float* masses = log_masses_.data() + (head_in_group * num_groups_ + m) * padded_;
    SoftmaxState state;
    softmax_step(state, masses, num_candidates_, columns);
    const float share = 1.f / (state.sum * static_cast<float>(num_groups_));
    for (int64_t j = 0; j < columns; j += kLanes) {
      store(weights + j, load(weights + j) + load(masses + j) * share);
    }
  }
  return weights;
}

template void PbsBlockWeights::compute<float>(const PbsInput&, int64_t, int64_t, int64_t);
template void PbsBlockWeights::compute<BF16>(const PbsInput&, int64_t, int64_t, int64_t);

}  // namespace pbserve::kernels::cpu
