// One layer of a PBS job: which operations run, and what they count. The lane (prefill_lane.h)
// knows when.
#pragma once

#include "engine/config.h"
#include "engine/step.h"
#include "kernels/ops/pbs.h"

namespace pbserve::engine {

// What a layer leaves for the report, on the device: blocks attended, then the audit's coverage
// sums of every head.
class PbsCounts {
 public:
  static PbsCounts take(int64_t num_layers, int64_t num_q_heads, kernels::Workspace& workspace);

  kernels::Tensor attended(int64_t layer) const { return rows_.at(layer).rows(0, 1); }
  kernels::Tensor coverage(int64_t layer) const { return rows_.at(layer).rows(1, rows_.dim(1)); }
  // Where the blocks of a selection go that is replaced (pbs.force_density).
  kernels::Tensor dropped() const { return rows_.at(rows_.dim(0) - 1).rows(0, 1); }

  void clear(const kernels::Stream& stream) const;
  static size_t num_bytes(int64_t num_layers, int64_t num_q_heads);
  void copy_to_host(std::byte* to, const kernels::Stream& stream) const;  // of all layers

  // From the copy: completes a report, in whose layers marked `is_pbs` blocks and sampled rows were
  // counted by PBS.
  static void complete(ChunkReport& report, const std::vector<bool>& is_pbs, const std::byte* from);

 private:
  kernels::Tensor rows_;  // [num_layers + 1, 1 + Hq] int64
};

struct PbsLayer {
  const PbsOptions& options;
  kernels::PbsInput input;
  PbsCounts counts;
  int layer;

  // Writes the job's pages. `pools_prefix`: the pages before the job lack their k_mean and k_var.
  void order(bool pools_prefix, const kernels::Stream& stream) const;

  // The output of query blocks [begin, end) over their q.
  void attend(int32_t block_begin, int32_t block_end, const kernels::Stream& stream) const;
};

}  // namespace pbserve::engine
