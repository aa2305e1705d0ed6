#include "kernels/cpu/pbs_mass.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/bits.h"
#include "kernels/cpu/page_moments.h"
#include "kernels/cpu/query_rows.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"

namespace pbserve::kernels::cpu {
namespace {

// Rows 0, kMassStride, 2 kMassStride... of q [n, Hq, D].
Tensor sampled(const Tensor& q) {
  Tensor view = q;
  view.shape[0] = ceil_div<int64_t>(q.dim(0), kMassStride);
  view.stride[0] *= kMassStride;
  return view;
}

}  // namespace

PbsBlockMasses& PbsBlockMasses::of_this_thread() {
  thread_local PbsBlockMasses masses;
  return masses;
}

template <class T>
void PbsBlockMasses::pack(const PbsInput& input, int64_t block, int64_t kv_head) {
  const int64_t begin = block * kPbsBlock;
  const int64_t end = std::min<int64_t>(begin + kPbsBlock, input.job.num_rows());
  const Tensor q = sampled(input.q.rows(begin, end));
  dim_ = q.dim(2);
  num_heads_ = q.dim(1) / input.pages.k.dim(1);
  num_samples_ = q.dim(0);
  const int64_t stride = packed_stride(dim_);
  float* queries = queries_.at_least(num_rows() * stride);
  for (int64_t g = 0; g < num_heads_; ++g) {
    pack_queries<T>(queries + g * num_samples_ * stride, q, kv_head * num_heads_ + g, input.scale);
  }
  float* spreads = spreads_.at_least(num_rows() * stride);
  for (int64_t row = 0; row < num_rows(); ++row) {
    for (int64_t d = row * stride; d < row * stride + dim_; d += kLanes) {
      const Vec value = load(queries + d);
      store(spreads + d, value * value * (kMassSpread / 2));
    }
  }
}

// Every row sees the pages of the segment before the block whole, and the block's up to itself.
template <class T>
void PbsBlockMasses::weigh_own_segment(const PbsInput& input, int64_t block, int64_t kv_head) {
  own_.assign(static_cast<size_t>(num_rows()), SoftmaxState{});
  float* keys = keys_.at_least(dim_ * kPageSize);
  float* logits = logits_.at_least(num_rows() * kPageSize);
  const int64_t first = align_down<int64_t>(block, input.params.segment / kPbsBlock);
  for (int64_t page = first; page <= block; ++page) {
    const auto visible = [&](int64_t row) -> int64_t {
      return page < block ? kPageSize : row % num_samples_ * kMassStride + 1;
    };
    const int64_t width = visible(num_samples_ - 1);
    const int64_t columns = align_up<int64_t>(width, kLanes);
    const Tensor own = input.plan.own.k.at(page).at(kv_head);
    transpose(keys, kPageSize, own.as<T>(), dim_, width, dim_);
    matmul(logits, kPageSize, queries_.data(), packed_stride(dim_), keys, kPageSize, num_rows(),
           columns, dim_, Accumulate::kOverwrite);
    for (int64_t row = 0; row < num_rows(); ++row) {
      softmax_step(own_[static_cast<size_t>(row)], logits + row * kPageSize, visible(row), columns);
    }
  }
}

template <class T>
void PbsBlockMasses::score_candidates(const PbsInput& input, int64_t kv_head) {
  float* columns = keys_.at_least(dim_ * kPageSize);
  float* firsts = firsts_.at_least(num_rows() * padded_);
  float* log_means = log_means_.at_least(num_rows() * padded_);
  const int32_t* table = input.block_table.as<int32_t>();
  for (int64_t begin = 0; begin < num_candidates_; begin += kPageSize) {
    const int64_t count = std::min<int64_t>(kPageSize, num_candidates_ - begin);
    const auto multiply = [&](float* products, const Tensor& per_page, float* rows,
                              Accumulate mode) {
      load_per_page<T>(columns, kPageSize, per_page, kv_head, table + begin, count);
      matmul(products + begin, padded_, rows, packed_stride(dim_), columns, kPageSize, num_rows(),
             align_up<int64_t>(count, kLanes), dim_, mode);
    };
    multiply(firsts, first_keys(input.pages), queries_.data(), Accumulate::kOverwrite);
    multiply(log_means, input.pages.k_mean, queries_.data(), Accumulate::kOverwrite);
    multiply(log_means, input.pages.k_var, spreads_.data(), Accumulate::kAdd);
  }
}

template <class T>
void PbsBlockMasses::compute(const PbsInput& input, int64_t block, int64_t kv_head,
                             int64_t num_candidates) {
  num_candidates_ = num_candidates;
  padded_ = align_up<int64_t>(num_candidates, kPageSize);
  pack<T>(input, block, kv_head);
  weigh_own_segment<T>(input, block, kv_head);
  score_candidates<T>(input, kv_head);
}

float* PbsBlockMasses::of_head(int64_t head_in_group) {
  const int64_t columns = align_up<int64_t>(num_candidates_, kLanes);
  float* weights = weights_.at_least(columns);
  std::fill_n(weights, columns, 0.f);
  for (int64_t i = 0; i < num_samples_; ++i) {
    const int64_t row = head_in_group * num_samples_ + i;
    float* firsts = firsts_.data() + row * padded_;
    float* means = log_means_.data() + row * padded_;
    SoftmaxState state = own_[static_cast<size_t>(row)];
    softmax_step(state, firsts, num_candidates_, columns);
    state.sum /= kPbsBlock;  // a mean counts for so many keys
    const float rescale = softmax_step(state, means, num_candidates_, columns) / kPbsBlock;
    const float inverse = 1.f / state.sum;
    for (int64_t j = 0; j < columns; j += kLanes) {
      const Vec share = (load(firsts + j) * rescale + load(means + j)) * inverse;
      store(weights + j, load(weights + j) + share * share);
    }
  }
  for (int64_t j = 0; j < num_candidates_; ++j) {
    weights[j] = std::sqrt(weights[j] / static_cast<float>(num_samples_));
  }
  return weights;
}

template void PbsBlockMasses::compute<float>(const PbsInput&, int64_t, int64_t, int64_t);
template void PbsBlockMasses::compute<BF16>(const PbsInput&, int64_t, int64_t, int64_t);

}  // namespace pbserve::kernels::cpu
