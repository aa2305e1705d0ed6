// One prompt through a model as the engine's prefill lane takes it, without the engine: in jobs of
// whole spans, dense or with PBS, on any device.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/ops/pbs.h"
#include "models/transformer.h"

namespace pbserve::bench {

struct ForwardResult {
  std::vector<float> logits;  // [num_last, V]
  double density;             // blocks attended over causal ones, of all layers
};

class LongForward {
 public:
  // Takes memory for prompts of up to `num_tokens_max`. The model and the stream outlive it.
  LongForward(const models::Transformer& model, int64_t num_tokens_max,
              const kernels::Stream& stream);

  // The logits of the last `num_last` of ids [T], dense or with PBS. Waits for them.
  // REQUIRES: T <= num_tokens_max, num_last <= kLastMax, and no job ends within the last rows.
  ForwardResult run(std::span<const int32_t> ids, int64_t num_last,
                    const std::optional<kernels::PbsParams>& params);

  static constexpr int64_t kLastMax = 256;

 private:
  static constexpr int64_t kJobRows = 8192;
  static constexpr int32_t kSpan = 1024;

  void lay_out(kernels::Workspace& workspace);
  void run_job(std::span<const int32_t> ids, kernels::PbsJob job,
               const std::optional<kernels::PbsParams>& params);
  void attend(const kernels::PbsInput& input);
  void attend_dense(const kernels::PbsInput& input);
  kernels::Tensor put(kernels::Tensor to, const void* values) const;

  const models::Transformer& model_;
  const kernels::Stream& stream_;
  int64_t num_pages_;
  int64_t rows_max_;
  kernels::DeviceBuffer buffer_;
  models::LayerScratch scratch_;
  std::vector<kernels::KvPages> pages_;
  kernels::PbsPlan plan_;
  kernels::Tensor hidden_, q_, ids_, positions_, slots_, own_slots_, block_table_, num_selected_,
      logits_;
};

}  // namespace pbserve::bench
