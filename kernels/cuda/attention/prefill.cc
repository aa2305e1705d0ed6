// prefill_attention and pbs_prefill: from Args to the kernel's parameters and its instantiation.
#include <algorithm>
#include <numbers>
#include <vector>

#include "kernels/core/bits.h"
#include "kernels/cuda/attention/prefill_sm90.h"
#include "kernels/cuda/device_data.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels::cuda {
namespace {

// Keys and values that a section's heads read should fit into half of the L2 cache (60 MB), so that
// blocks which start a moment later still find them there.
int heads_per_section(int64_t kv_len, int num_q_heads, int num_kv_heads, int64_t head_dim) {
  constexpr int64_t kSectionBytes = 32 << 20;
  const int64_t head_bytes = kv_len * head_dim * 2 * static_cast<int64_t>(sizeof(BF16));
  int kv_heads = num_kv_heads;
  while (kv_heads > 1 && (num_kv_heads % kv_heads != 0 || kv_heads * head_bytes > kSectionBytes)) {
    --kv_heads;
  }
  return kv_heads * (num_q_heads / num_kv_heads);
}

PrefillParams common_params(std::string_view op, const Tensor& out, const Tensor& q,
                            const Tensor& k_pages, const Tensor& v_pages, float scale,
                            const StreamState& state) {
  check_heads(op, q);
  const int64_t page_rows = k_pages.dim(0) * k_pages.dim(1) * k_pages.dim(2);
  PrefillParams params{};
  params.q_map = make_head_map(q, kPrefillTileRows);
  params.k_map = make_row_map(k_pages.data, page_rows, q.dim(2), kPageSize);
  params.v_map = make_row_map(v_pages.data, page_rows, q.dim(2), kPageSize);
  params.out = device_data<__nv_bfloat16>(out);
  params.tile_counter = state.counters;
  params.num_q_heads = static_cast<int32_t>(q.dim(1));
  params.num_kv_heads = static_cast<int32_t>(k_pages.dim(1));
  params.scale_log2 = scale * std::numbers::log2e_v<float>;
  return params;
}

void add_part(PrefillParams& params, const PrefillSegment& segment, int64_t head_dim) {
  const auto row_tiles =
      static_cast<int32_t>(ceil_div<int64_t>(segment.num_rows, kPrefillTileRows));
  params.parts[params.num_parts++] = {
      .row_begin = segment.row_begin,
      .num_rows = segment.num_rows,
      .position = segment.position,
      .sequence = segment.sequence,
      .tile_begin = params.num_tiles,
      .num_row_tiles = row_tiles,
      .heads_per_section = heads_per_section(segment.position + segment.num_rows,
                                             params.num_q_heads, params.num_kv_heads, head_dim)};
  params.num_tiles += row_tiles * params.num_q_heads;
}

template <bool kIsSparse>
void launch(const PrefillParams& params, int64_t head_dim, const StreamState& state) {
  head_dim == 64 ? launch_prefill_sm90<64, kIsSparse>(params, state.num_sms, state.stream)
                 : launch_prefill_sm90<128, kIsSparse>(params, state.num_sms, state.stream);
}

}  // namespace

void prefill_attention(const PrefillAttentionArgs& args, CudaHandle stream) {
  const StreamState& state = state_of(stream);
  PrefillParams params = common_params("prefill_attention", args.out, args.q, args.k_pages,
                                       args.v_pages, args.scale, state);
  params.block_tables = args.block_tables.as<int32_t>();
  params.max_pages = static_cast<int32_t>(args.block_tables.dim(1));
  const int64_t head_dim = args.q.dim(2);
  std::vector<PrefillSegment> segments(args.segments.begin(), args.segments.end());
  std::ranges::sort(segments, std::greater(), [](const PrefillSegment& segment) {
    return segment.position + segment.num_rows;  // the longest tiles first
  });
  for (const PrefillSegment& segment : segments) {
    add_part(params, segment, head_dim);
    if (params.num_parts < kMaxPrefillSegments) continue;
    launch<false>(params, head_dim, state);
    params.num_parts = params.num_tiles = 0;
  }
  if (params.num_parts > 0) launch<false>(params, head_dim, state);
}

void pbs_prefill(const PbsPrefillArgs& args, CudaHandle stream) {
  if (args.block_begin == args.block_end) return;
  const PbsInput& input = args.input;
  const PbsJob& job = input.job;
  const Tensor& mask = input.plan.mask;
  const KvPages& own = input.plan.own;
  const StreamState& state = state_of(stream);
  const int64_t head_dim = input.q.dim(2);
  PrefillParams params = common_params("pbs_prefill", args.out, input.q, input.pages.k,
                                       input.pages.v, input.scale, state);
  const int64_t own_rows = own.k.dim(0) * own.k.dim(1) * own.k.dim(2);
  params.own_k_map = make_row_map(own.k.data, own_rows, head_dim, kPbsBlock);
  params.own_v_map = make_row_map(own.v.data, own_rows, head_dim, kPbsBlock);
  params.mask = mask.as<uint32_t>();
  params.mask_head_stride = mask.stride[0];
  params.mask_block_stride = mask.stride[1];
  params.segment_blocks = input.params.segment / kPbsBlock;
  params.job_block = job.begin / kPbsBlock;
  params.first_block = args.block_begin;
  params.block_tables = input.block_table.as<int32_t>();
  const int32_t row_begin = args.block_begin * kPbsBlock;
  const int32_t row_end = std::min(args.block_end * kPbsBlock, job.num_rows());
  add_part(params,
           {.row_begin = row_begin,
            .num_rows = row_end - row_begin,
            .position = job.begin + row_begin,
            .sequence = 0},
           head_dim);
  launch<true>(params, head_dim, state);
}

}  // namespace pbserve::kernels::cuda
