#include "kernels/ops/pbs_force.h"

#include <algorithm>
#include <atomic>

#include "kernels/core/bits.h"

namespace pbserve::kernels::cpu {

void pbs_force_mask(const PbsForceMaskArgs& args, ThreadPool& pool) {
  const Tensor& mask = args.mask;
  const auto num_heads = static_cast<int32_t>(mask.dim(0));
  const int64_t num_blocks = args.block_end - args.block_begin;
  const std::atomic_ref<int64_t> num_selected(*args.num_selected.as<int64_t>());
  pool.parallel_for(num_blocks, [&](int64_t item) {
    const auto block = args.block_begin + static_cast<int32_t>(item);
    const int32_t block_idx = args.job.begin / kPbsBlock + block;
    const int32_t num_candidates = align_down(block_idx, args.segment / kPbsBlock);
    const uint32_t share = forced_share(block_idx, num_candidates, args.density);
    int64_t num_attended = 0;
    for (int32_t head = 0; head < num_heads; ++head) {
      uint32_t* words = mask.as<uint32_t>() + head * mask.stride[0] + block * mask.stride[1];
      std::fill_n(words, mask.dim(2), 0u);
      num_attended += block_idx + 1 - num_candidates;
      for (int32_t j = 0; j < num_candidates; ++j) {
        if (!is_forced(head, block_idx, j, share)) continue;
        words[j / 32] |= uint32_t{1} << (j % 32);
        ++num_attended;
      }
    }
    num_selected += num_attended;
  });
}

}  // namespace pbserve::kernels::cpu
