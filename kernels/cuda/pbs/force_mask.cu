// The mask of pbs_force.h: a draw for every block from its place alone. A warp draws the 32 blocks
// of a word.
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/stream_state.h"
#include "kernels/ops/pbs_force.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 128;

struct Params {
  uint32_t* mask;  // [Hq, mask_blocks, num_words]
  unsigned long long* num_selected;
  int64_t mask_blocks;
  int32_t num_words;
  int32_t first_block;     // counted in the job
  int32_t job_block;       // job.begin / B
  int32_t segment_blocks;  // S / B
  float density;
};

// Block (query block, head); a warp writes words of the mask.
__global__ void __launch_bounds__(kThreads) force_mask_kernel(Params p) {
  const int32_t block = p.first_block + static_cast<int32_t>(blockIdx.x);
  const auto head = static_cast<int32_t>(blockIdx.y);
  const int32_t block_idx = p.job_block + block;
  const int32_t num_candidates = block_idx / p.segment_blocks * p.segment_blocks;
  const uint32_t share = forced_share(block_idx, num_candidates, p.density);
  const int lane = threadIdx.x % 32;
  uint32_t* words = p.mask + (head * p.mask_blocks + block) * p.num_words;
  unsigned long long num_attended = threadIdx.x == 0 ? block_idx + 1 - num_candidates : 0;
  for (int word = threadIdx.x / 32; word < p.num_words; word += kThreads / 32) {
    const int j = word * 32 + lane;
    const bool taken = j < num_candidates && is_forced(head, block_idx, j, share);
    const uint32_t bits = __ballot_sync(~0u, taken);
    if (lane != 0) continue;
    words[word] = bits;
    num_attended += __popc(bits);
  }
  if (lane == 0) atomicAdd(p.num_selected, num_attended);
}

}  // namespace

void pbs_force_mask(const PbsForceMaskArgs& args, CudaHandle stream) {
  const Tensor& mask = args.mask;
  const Params p{.mask = device_data<uint32_t>(mask),
                 .num_selected =
                     reinterpret_cast<unsigned long long*>(device_data<int64_t>(args.num_selected)),
                 .mask_blocks = mask.dim(1),
                 .num_words = static_cast<int32_t>(mask.dim(2)),
                 .first_block = args.block_begin,
                 .job_block = args.job.begin / kPbsBlock,
                 .segment_blocks = args.segment / kPbsBlock,
                 .density = args.density};
  const dim3 grid(static_cast<unsigned>(args.block_end - args.block_begin),
                  static_cast<unsigned>(mask.dim(0)));
  if (grid.x == 0) return;
  force_mask_kernel<<<grid, kThreads, 0, stream_of(stream)>>>(p);
  check_launch("pbs_force_mask");
}

}  // namespace pbserve::kernels::cuda
