// The share of sampled queries' attention mass that the taken pages and the own segment hold.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <vector>

#include "kernels/core/bits.h"
#include "kernels/cpu/aligned_floats.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/cpu/query_rows.h"
#include "kernels/cpu/softmax_row.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/transpose.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {
namespace {

double coverage_of(const SoftmaxState& seen, const SoftmaxState& missed) {
  if (missed.sum == 0.f) return 1;
  return 1 / (1 + std::exp(double{missed.top} - double{seen.top}) * (missed.sum / seen.sum));
}

// The sampled rows of one query block and head.
template <class T>
class AuditedHead {
 public:
  AuditedHead(const PbsInput& input, int64_t block, int64_t head)
      : in_(input),
        block_(block),
        head_(head),
        kv_head_(head / (input.q.dim(1) / input.pages.k.dim(1))),
        dim_(input.q.dim(2)),
        row_end_(std::min<int64_t>((block + 1) * kPbsBlock, input.job.num_rows())),
        row_begin_(std::max<int64_t>(block * kPbsBlock, row_end_ - kAuditRows)) {
    queries_.at_least(kAuditRows * packed_stride(dim_));
    keys_.at_least(dim_ * kPageSize);
    logits_.at_least(kAuditRows * kPageSize);
    pack_queries<T>(queries_.data(), in_.q.rows(row_begin_, row_end_), head_, in_.scale);
  }

  // Sum of the rows' coverages, in units of 2^-32.
  int64_t run() {
    const PagedKeys<T> pages(in_.pages.k, in_.pages.v, in_.block_table.as<int32_t>());
    const int64_t position = in_.job.begin + row_begin_;
    const int64_t segment_begin = align_down<int64_t>(position, in_.params.segment);
    const uint32_t* words = in_.plan.mask.at(head_).at(block_).as<uint32_t>();
    for (int64_t j = 0; j < segment_begin / kPbsBlock; ++j) {
      const bool is_taken = words[j / 32] >> (j % 32) & 1u;
      add_keys(pages.k(j, kv_head_), is_taken ? seen_ : missed_, kPageSize);
    }
    for (int64_t key = segment_begin; key < in_.job.begin + row_end_; key += kPageSize) {
      const Tensor own = in_.plan.own.k.at((key - in_.job.begin) / kPageSize).at(kv_head_);
      add_keys(own.as<T>(), seen_, position - key + 1);
    }
    int64_t total = 0;
    for (int64_t i = 0; i < row_end_ - row_begin_; ++i) {
      total += std::llround(coverage_of(seen_[i], missed_[i]) * 0x1p32);
    }
    return total;
  }

 private:
  using States = std::array<SoftmaxState, kAuditRows>;

  // Row i sees the first `visible` + i keys of the page.
  void add_keys(const T* keys, States& states, int64_t visible) {
    const int64_t num_rows = row_end_ - row_begin_;
    const int64_t width = std::min<int64_t>(kPageSize, visible + num_rows - 1);
    transpose(keys_.data(), kPageSize, keys, dim_, width, dim_);
    const int64_t columns = align_up<int64_t>(width, kLanes);
    matmul(logits_.data(), kPageSize, queries_.data(), packed_stride(dim_), keys_.data(), kPageSize,
           num_rows, columns, dim_, Accumulate::kOverwrite);
    for (int64_t i = 0; i < num_rows; ++i) {
      softmax_step(states[i], logits_.data() + i * kPageSize, std::min(visible + i, width),
                   columns);
    }
  }

  const PbsInput& in_;
  int64_t block_;
  int64_t head_;
  int64_t kv_head_;
  int64_t dim_;
  int64_t row_end_;  // of the job
  int64_t row_begin_;
  States seen_{};
  States missed_{};
  AlignedFloats queries_;  // [kAuditRows, packed_stride(D)]
  AlignedFloats keys_;     // [D, kPageSize]
  AlignedFloats logits_;   // [kAuditRows, kPageSize]
};

template <class T>
void audit(const PbsAuditArgs& args, ThreadPool& pool) {
  const PbsInput& in = args.input;
  std::vector<int32_t> blocks;
  for (int32_t block = args.block_begin; block < args.block_end; ++block) {
    if (is_audited(in.job, block, in.params.dense_tail, args.period)) blocks.push_back(block);
  }
  const int64_t num_heads = in.q.dim(1);
  pool.parallel_for(static_cast<int64_t>(blocks.size()) * num_heads, [&](int64_t item) {
    const int64_t head = item % num_heads;
    const std::atomic_ref<int64_t> coverage(args.coverage.as<int64_t>()[head]);
    coverage += AuditedHead<T>(in, blocks[static_cast<size_t>(item / num_heads)], head).run();
  });
}

}  // namespace

void pbs_audit(const PbsAuditArgs& args, ThreadPool& pool) {
  args.input.q.dtype == DType::kBF16 ? audit<BF16>(args, pool) : audit<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
