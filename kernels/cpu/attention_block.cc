#include "kernels/cpu/attention_block.h"

#include <algorithm>

#include "kernels/cpu/query_rows.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"
#include "kernels/ops/rope.h"

namespace pbserve::kernels::cpu {
namespace {

// Rows whose logits are alive at once: 24 KB, so that they stay in the first-level cache between
// the two products. A multiple of kTileRows.
constexpr int64_t kRowChunk = 48;

}  // namespace

AttentionBlock& AttentionBlock::of_this_thread() {
  thread_local AttentionBlock block;
  return block;
}

template <class T>
void AttentionBlock::start(const Tensor& q, int64_t kv_head, int64_t num_kv_heads, float scale) {
  num_tokens_ = q.dim(0);
  group_ = q.dim(1) / num_kv_heads;
  dim_ = q.dim(2);
  kv_head_ = kv_head;
  check(dim_ % kLanes == 0, "head size is not a multiple of 16");
  const int64_t num_rows = group_ * num_tokens_;
  states_.assign(static_cast<size_t>(num_rows), SoftmaxState{});
  std::fill_n(out_.at_least(num_rows * dim_), num_rows * dim_, 0.f);
  logits_.at_least(kRowChunk * kPageSize);
  float* rows = q_.at_least(num_rows * packed_stride(dim_));
  for (int64_t g = 0; g < group_; ++g) {
    pack_queries<T>(rows + g * num_tokens_ * packed_stride(dim_), q, kv_head * group_ + g, scale);
  }
}

template <class T>
void AttentionBlock::load_keys(const T* k, const T* v, int64_t num_keys) {
  num_keys_ = num_keys;
  transpose(k_.at_least(dim_ * kPageSize), kPageSize, k, dim_, num_keys, dim_);
  float* values = v_.at_least(kPageSize * dim_);
  for (int64_t i = 0; i < num_keys * dim_; i += kLanes) store(values + i, load(v + i));
}

void AttentionBlock::attend(int64_t visible) { attend_rows(0, group_ * num_tokens_, visible); }

void AttentionBlock::attend_head(int64_t head_in_group) {
  attend_rows(head_in_group * num_tokens_, (head_in_group + 1) * num_tokens_, num_keys_);
}

void AttentionBlock::attend_rows(int64_t begin, int64_t end, int64_t visible) {
  const auto keys_of = [&](int64_t row) {
    return std::min(visible + row % num_tokens_, num_keys_);
  };
  float* logits = logits_.data();
  for (int64_t first = begin; first < end; first += kRowChunk) {
    const int64_t rows = std::min(kRowChunk, end - first);
    int64_t width = 0;
    for (int64_t i = 0; i < rows; ++i) width = std::max(width, keys_of(first + i));
    const int64_t columns = align_up<int64_t>(width, kLanes);
    const float* q = q_.data() + first * packed_stride(dim_);
    float* out = out_.data() + first * dim_;
    matmul(logits, kPageSize, q, packed_stride(dim_), k_.data(), kPageSize, rows, columns, dim_,
           Accumulate::kOverwrite);
    for (int64_t i = 0; i < rows; ++i) {
      const float rescale = softmax_step(states_[static_cast<size_t>(first + i)],
                                         logits + i * kPageSize, keys_of(first + i), columns);
      if (rescale == 1.f) continue;
      for (int64_t d = 0; d < dim_; d += kLanes) {
        store(out + i * dim_ + d, load(out + i * dim_ + d) * rescale);
      }
    }
    matmul(out, dim_, logits, kPageSize, v_.data(), dim_, rows, dim_, width, Accumulate::kAdd);
  }
}

template <class T>
void AttentionBlock::finish(const Tensor& out) {
  for (int64_t row = 0; row < group_ * num_tokens_; ++row) {
    const int64_t head = kv_head_ * group_ + row / num_tokens_;
    T* to = out.as<T>() + row % num_tokens_ * out.stride[0] + head * out.stride[1];
    const float* from = out_.data() + row * dim_;
    const float sum = states_[static_cast<size_t>(row)].sum;
    const float inverse = sum > 0.f ? 1.f / sum : 0.f;  // no keys at all: zeros
    for (int64_t d = 0; d < dim_; d += kLanes) store(to + d, load(from + d) * inverse);
  }
}

template void AttentionBlock::start<float>(const Tensor&, int64_t, int64_t, float);
template void AttentionBlock::start<BF16>(const Tensor&, int64_t, int64_t, float);
template void AttentionBlock::load_keys<float>(const float*, const float*, int64_t);
template void AttentionBlock::load_keys<BF16>(const BF16*, const BF16*, int64_t);
template void AttentionBlock::finish<float>(const Tensor&);
template void AttentionBlock::finish<BF16>(const Tensor&);

}  // namespace pbserve::kernels::cpu
