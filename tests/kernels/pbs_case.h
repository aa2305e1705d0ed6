// One span of one planted sequence, as the kernels and as the oracle see it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/ops/pbs.h"
#include "tests/kernels/attention_case.h"
#include "tests/reference/pbs_ref.h"

namespace pbserve::test {

using kernels::kPbsBlock;
using kernels::num_causal_blocks;
using kernels::PbsParams;
using kernels::PbsPlan;
using kernels::PbsScorer;
using kernels::PbsSelector;
using kernels::PbsSpan;

// Spans of the tests are 1,024 tokens where the product's are 8,192.
inline constexpr int32_t kTestSpan = 1024;

// float32 where the backend computes attention in it, else bfloat16.
DType widest_dtype(const Backend& backend);

// The spans of a prompt, half-open.
std::vector<PbsSpan> spans_of(int32_t prompt_len, int32_t span_len);

// The steps run on the stream, which outlives the case; what they leave is copied to the host.
class PbsCase {
 public:
  // The whole plan is filled with 0xFF (NaN, and every mask bit set) before any step.
  PbsCase(const Stream& stream, const AttentionShape& shape, PbsSpan span, const PbsParams& params,
          unsigned seed = 1);
  // The span's queries and keys are those of `sequence`, which is at least span.end long.
  PbsCase(const Stream& stream, const AttentionShape& shape, PbsSpan span, const PbsParams& params,
          const Sequence& sequence);

  void order();
  // Query blocks [block_begin, block_end); returns the blocks counted as attended.
  int64_t select(int64_t block_begin, int64_t block_end);
  int64_t select() { return select(0, problem().num_query_blocks()); }
  void prefill(int64_t block_begin, int64_t block_end);
  void prefill() { prefill(0, problem().num_query_blocks()); }

  // Dense attention of the same rows.
  HostTensor dense() const;

  // The kernel's results in the oracle's terms.
  reference::Order kernel_order() const;
  reference::Taken kernel_taken() const;

  const reference::PbsProblem& problem() const { return problem_; }
  const PbsPlan& plan() const { return host_plan_; }  // what a test writes there needs an upload
  void upload_plan();
  void limit_scratch(int64_t num_bytes);  // of the steps to come
  const Tensor& out() const { return out_.view(); }
  PagedCache& cache() { return cache_; }
  PbsParams& params() { return problem_.params; }
  bool is_cuda() const { return stream_.is_cuda(); }
  // Of attention over values of about 1, beyond what close_to allows by itself.
  double arithmetic_error() const;
  AttentionShape shape;
  PbsSpan span;

 private:
  kernels::PbsPlanShape plan_shape() const;
  void download_plan();

  const Stream& stream_;
  reference::PbsProblem problem_;
  PagedCache cache_;
  HostTensor q_, out_;
  DeviceTensor device_q_, device_out_;
  kernels::DeviceBuffer plan_memory_;  // on the stream's device, and as it was after the last step
  kernels::DeviceBuffer host_plan_memory_;
  PbsPlan plan_, host_plan_;
};

// All output rows of the span against the oracle, on the kernel's own order and mask; every
// `row_step`-th row and the last.
::testing::AssertionResult output_matches(const PbsCase& pbs, int64_t row_step);

}  // namespace pbserve::test
