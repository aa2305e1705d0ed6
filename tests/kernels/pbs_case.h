// One job of one planted sequence, as the kernels and as the oracle see it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/ops/pbs.h"
#include "tests/kernels/attention_case.h"
#include "tests/reference/pbs_ref.h"

namespace pbserve::test {

using kernels::kAuditRows;
using kernels::kMassStride;
using kernels::kPbsBlock;
using kernels::num_causal_blocks;
using kernels::PbsJob;
using kernels::PbsParams;
using kernels::PbsScorer;
using kernels::PbsSelector;

// The selector top_p, of a scorer whose weights add up to 1.
PbsParams top_p(PbsScorer scorer, float threshold, PbsParams others = {});

// float32 where the backend computes attention in it, else bfloat16.
DType widest_dtype(const Backend& backend);

// Positions [begin, end) in spans of 1,024; the prompt ends with the job, or much later.
PbsJob job_of(int32_t begin, int32_t end, int32_t span_len = 1024);
PbsJob early_job(int32_t begin, int32_t end, int32_t span_len = 1024);

// The steps run on the stream, which outlives the case; what they leave is copied to the host. The
// pages of earlier segments hold their keys in some random order, as spans before would have left
// them; everything that must not be read is NaN, mask bits are all set.
class PbsCase {
 public:
  PbsCase(const Stream& stream, const AttentionShape& shape, PbsJob job, const PbsParams& params,
          unsigned seed = 1);
  // The job's queries and keys are those of `sequence`, which is at least job.end long.
  PbsCase(const Stream& stream, const AttentionShape& shape, PbsJob job, const PbsParams& params,
          const Sequence& sequence);

  void order();
  // Query blocks [block_begin, block_end); returns the blocks counted as attended.
  int64_t select(int64_t block_begin, int64_t block_end);
  int64_t select() { return select(0, problem_.num_query_blocks()); }
  // Mean coverage of each query head's sampled rows.
  std::vector<double> audit(int32_t period);
  void prefill(int64_t block_begin, int64_t block_end);
  void prefill() { prefill(0, problem_.num_query_blocks()); }

  // Dense attention of the job's rows over the natural keys.
  HostTensor dense() const;
  // One decode row at the job's last position over the pages as they are.
  HostTensor decode_last_row() const;

  // The kernel's results in the oracle's terms. The order is read off the values in the pages.
  reference::Order kernel_order() const;
  reference::Taken kernel_taken() const;
  reference::BlockMoments kernel_moments() const;

  const reference::PbsProblem& problem() const { return problem_; }
  const HostTensor& k_pages() const { return k_pages_; }
  const HostTensor& v_pages() const { return v_pages_; }
  const HostTensor& k_mean() const { return k_mean_; }
  const HostTensor& k_var() const { return k_var_; }
  int32_t page(int64_t idx) const { return cache_.block_table(0).as<int32_t>()[idx]; }
  void limit_scratch(int64_t num_bytes);        // of the steps to come
  void poison_own(int64_t begin, int64_t end);  // rows of the job, half-open
  const Tensor& out() const { return out_.view(); }
  PbsParams& params() { return problem_.params; }
  bool is_cuda() const { return stream_.is_cuda(); }
  // Of attention over values of about 1, beyond what close_to allows by itself.
  double arithmetic_error() const;

  AttentionShape shape;
  PbsJob job;

 private:
  class OnDevice;  // everything the steps read or write, copied to the device for one of them

  void shuffle_earlier();
  void write_page_row(int64_t position, int64_t place, int64_t kv_head);
  int64_t moments_idx(int64_t block, int64_t kv_head) const;  // of the first of D values

  const Stream& stream_;
  reference::PbsProblem problem_;
  PagedCache cache_;  // natural; the pages below have its table
  HostTensor k_pages_, v_pages_, k_mean_, k_var_, own_k_, own_v_, mask_, q_, out_;
  int64_t scratch_bytes_;
};

// Output rows of the job against the oracle, on the kernel's own order and mask: every
// `row_step`-th row and the last.
::testing::AssertionResult output_matches(const PbsCase& pbs, int64_t row_step);

}  // namespace pbserve::test
