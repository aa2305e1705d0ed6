// For benchmarks: random prompts have no structure that PBS could use, so the blocks it would take
// of natural text are drawn instead, after all of the planning was done.
#pragma once

#include "kernels/core/philox.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels {

struct PbsForceMaskArgs {
  Tensor mask;  // PbsPlan::mask: rows of the blocks are overwritten
  PbsJob job;
  int32_t block_begin;  // query blocks of the job, half-open
  int32_t block_end;
  Tensor num_selected;  // [1] int64: += blocks attended, as pbs_select counts them
  int32_t segment;      // S
  float density;  // attended blocks / causal blocks of each query block, where the own segment
                  // leaves that few; in (0, 1]
};

// A block's bits depend on the head and the places alone: the same on every device.
void pbs_force_mask(const PbsForceMaskArgs& args, const Stream& stream);

// A query block's share of its `num_candidates` blocks, in units of 2^-32, that makes `density` of
// all its causal blocks; `block_idx` counts from the sequence's begin.
PBSERVE_HOST_DEVICE constexpr uint32_t forced_share(int32_t block_idx, int32_t num_candidates,
                                                    float density) {
  if (num_candidates == 0) return 0;
  const int32_t num_own = block_idx + 1 - num_candidates;
  const double share = (double{density} * (block_idx + 1) - num_own) / num_candidates;
  return share <= 0 ? 0u : share >= 1 ? ~0u : static_cast<uint32_t>(share * 0x1p32);
}

PBSERVE_HOST_DEVICE constexpr bool is_forced(int32_t head, int32_t block_idx, int32_t candidate,
                                             uint32_t share) {
  const PhiloxBlock bits =
      philox(static_cast<uint64_t>(head),
             {{static_cast<uint32_t>(block_idx), static_cast<uint32_t>(candidate), 0, 0}});
  return bits.x[0] < share || share == ~0u;
}

namespace cpu {
void pbs_force_mask(const PbsForceMaskArgs& args, ThreadPool& pool);
}
namespace cuda {
void pbs_force_mask(const PbsForceMaskArgs& args, CudaHandle stream);
}

}  // namespace pbserve::kernels
