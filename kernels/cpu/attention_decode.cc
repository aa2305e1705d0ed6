// Decode: one query row of each sequence against its whole context. The tiles, their order and
// their arithmetic are those of prefill, so the row's result is too.

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/paged_keys.h"
#include "kernels/ops/attention.h"

namespace pbserve::kernels::cpu {
namespace {

template <class T>
void decode_row(const DecodeAttentionArgs& args, int64_t row, int64_t kv_head) {
  const Tensor& tables = args.block_tables;
  const int64_t context_len = args.context_lens.as<int32_t>()[row];
  const PagedKeys<T> keys(args.k_pages, args.v_pages,
                          tables.as<int32_t>() + row * tables.stride[0]);
  AttentionBlock& attention = AttentionBlock::of_this_thread();
  attention.start<T>(args.q.rows(row, row + 1), kv_head, args.k_pages.dim(1), args.scale);
  for (int64_t begin = 0; begin < context_len; begin += kPageSize) {
    const int64_t page = begin / kPageSize;
    const int64_t num_keys = std::min<int64_t>(kPageSize, context_len - begin);
    attention.load_keys(keys.k(page, kv_head), keys.v(page, kv_head), num_keys);
    attention.attend(num_keys);
  }
  attention.finish<T>(args.out.rows(row, row + 1));
}

template <class T>
void decode(const DecodeAttentionArgs& args, ThreadPool& pool) {
  const int64_t num_kv_heads = args.k_pages.dim(1);
  pool.parallel_for(args.q.dim(0) * num_kv_heads, [&](int64_t item) {
    decode_row<T>(args, item / num_kv_heads, item % num_kv_heads);
  });
}

}  // namespace

int64_t decode_scratch_bytes(const DecodeScratchShape&) { return 0; }

void decode_attention(const DecodeAttentionArgs& args, ThreadPool& pool) {
  args.q.dtype == DType::kBF16 ? decode<BF16>(args, pool) : decode<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
