// Block-sparse prefill: the tiles of a query block are the taken pages of earlier segments, then
// its own segment in natural order. With every page taken and pages in natural order, that is the
// tile list of dense prefill.

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cpu {
namespace {

template <class T>
void attend_taken_pages(AttentionBlock& attention, const PbsInput& in, int64_t block,
                        int64_t kv_head, int64_t num_candidates) {
  const PagedKeys<T> pages(in.pages.k, in.pages.v, in.block_table.as<int32_t>());
  const int64_t group = in.q.dim(1) / in.pages.k.dim(1);
  const Tensor& mask = in.plan.mask;
  const uint32_t* words =
      mask.as<uint32_t>() + kv_head * group * mask.stride[0] + block * mask.stride[1];
  for (int64_t j = 0; j < num_candidates; ++j) {
    bool loaded = false;
    for (int64_t g = 0; g < group; ++g) {
      if ((words[g * mask.stride[0] + j / 32] >> (j % 32) & 1u) == 0) continue;
      if (!loaded) attention.load_keys(pages.k(j, kv_head), pages.v(j, kv_head), kPageSize);
      loaded = true;
      attention.attend_head(g);
    }
  }
}

template <class T>
void prefill_block(const PbsPrefillArgs& args, int64_t block, int64_t kv_head) {
  const PbsInput& in = args.input;
  const int64_t row_begin = block * kPbsBlock;
  const int64_t row_end = std::min<int64_t>(row_begin + kPbsBlock, in.job.num_rows());
  const int64_t begin = in.job.begin + row_begin;  // positions
  const int64_t end = in.job.begin + row_end;
  const int64_t segment_begin = align_down<int64_t>(begin, in.params.segment);

  AttentionBlock& attention = AttentionBlock::of_this_thread();
  attention.start<T>(in.q.rows(row_begin, row_end), kv_head, in.pages.k.dim(1), in.scale);
  attend_taken_pages<T>(attention, in, block, kv_head, segment_begin / kPbsBlock);
  for (int64_t key = segment_begin; key < end; key += kPageSize) {
    const int64_t own = (key - in.job.begin) / kPageSize;
    attention.load_keys(in.plan.own.k.at(own).at(kv_head).template as<T>(),
                        in.plan.own.v.at(own).at(kv_head).template as<T>(),
                        std::min<int64_t>(kPageSize, end - key));
    attention.attend(begin - key + 1);
  }
  attention.finish<T>(args.out.rows(row_begin, row_end));
}

template <class T>
void prefill(const PbsPrefillArgs& args, ThreadPool& pool) {
  const int64_t num_kv_heads = args.input.pages.k.dim(1);
  const int64_t num_blocks = args.block_end - args.block_begin;
  pool.parallel_for(num_blocks * num_kv_heads, [&](int64_t item) {
    prefill_block<T>(args, args.block_end - 1 - item / num_kv_heads, item % num_kv_heads);
  });
}

}  // namespace

void pbs_prefill(const PbsPrefillArgs& args, ThreadPool& pool) {
  args.input.q.dtype == DType::kBF16 ? prefill<BF16>(args, pool) : prefill<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
