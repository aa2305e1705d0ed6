// Dense causal prefill. One item is one block of positions [128 b, 128 b + 128) of one segment and
// one key head; all its tiles but the last are full for every row.

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/ops/attention.h"

namespace pbserve::kernels::cpu {
namespace {

int64_t first_block(const PrefillSegment& s) { return s.position / kPageSize; }
int64_t num_blocks(const PrefillSegment& s) {
  return ceil_div(s.position + s.num_rows, kPageSize) - first_block(s);
}

template <class T>
void prefill_block(const PrefillAttentionArgs& args, const PrefillSegment& segment, int64_t block,
                   int64_t kv_head) {
  const Tensor& tables = args.block_tables;
  const PagedKeys<T> keys(args.k_pages, args.v_pages,
                          tables.as<int32_t>() + segment.sequence * tables.stride[0]);
  const int64_t begin = std::max<int64_t>(segment.position, block * kPageSize);
  const int64_t end =
      std::min<int64_t>(segment.position + segment.num_rows, (block + 1) * kPageSize);
  const int64_t row = segment.row_begin - segment.position;  // of position 0

  AttentionBlock& attention = AttentionBlock::of_this_thread();
  attention.start<T>(args.q.rows(row + begin, row + end), kv_head, args.k_pages.dim(1), args.scale);
  for (int64_t page = 0; page <= block; ++page) {
    const int64_t page_begin = page * kPageSize;
    attention.load_keys(keys.k(page, kv_head), keys.v(page, kv_head),
                        std::min<int64_t>(kPageSize, end - page_begin));
    attention.attend(begin - page_begin + 1);
  }
  attention.finish<T>(args.out.rows(row + begin, row + end));
}

template <class T>
void prefill(const PrefillAttentionArgs& args, ThreadPool& pool) {
  const int64_t num_kv_heads = args.k_pages.dim(1);
  int64_t num_items = 0;
  for (const PrefillSegment& s : args.segments) num_items += num_blocks(s) * num_kv_heads;
  pool.parallel_for(num_items, [&](int64_t item) {
    const int64_t kv_head = item % num_kv_heads;
    int64_t idx = item / num_kv_heads;
    for (const PrefillSegment& s : args.segments) {
      if (idx < num_blocks(s)) {  // a segment's last block is the longest and goes first
        return prefill_block<T>(args, s, first_block(s) + num_blocks(s) - 1 - idx, kv_head);
      }
      idx -= num_blocks(s);
    }
  });
}

}  // namespace

void prefill_attention(const PrefillAttentionArgs& args, ThreadPool& pool) {
  args.q.dtype == DType::kBF16 ? prefill<BF16>(args, pool) : prefill<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
