#include "kernels/cpu/page_moments.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {

void pbs_pool(const PbsPoolArgs& args, ThreadPool& pool) {
  const int64_t num_kv_heads = args.pages.k.dim(1);
  const bool is_bf16 = args.pages.k.dtype == DType::kBF16;
  pool.parallel_for(args.num_pages * num_kv_heads, [&](int64_t item) {
    const int64_t page = args.block_table.as<int32_t>()[item / num_kv_heads];
    const int64_t kv_head = item % num_kv_heads;
    is_bf16 ? write_page_moments<BF16>(args.pages, page, kv_head)
            : write_page_moments<float>(args.pages, page, kv_head);
  });
}

}  // namespace pbserve::kernels::cpu
