// decode_attention: from Args to the kernels' parameters and their instantiation.
#include <numbers>

#include "kernels/cuda/attention/paged_decode.h"
#include "kernels/cuda/device_data.h"
#include "kernels/cuda/stream_state.h"
#include "kernels/ops/attention.h"

namespace pbserve::kernels::cuda {
namespace {

int64_t num_chunk_slots(const DecodeScratchShape& shape) {
  return shape.num_rows_max * shape.num_q_heads * kMaxChunks;
}

template <int kHeadDim>
void launch(const DecodeParams& params, const StreamState& state) {
  launch_paged_decode<kHeadDim>(params, state.num_sms, state.stream);
  launch_decode_combine<kHeadDim>(params, state.stream);
}

}  // namespace

int64_t decode_scratch_bytes(const DecodeScratchShape& shape) {
  const int64_t slot_bytes =
      static_cast<int64_t>(sizeof(float2)) + shape.head_dim * static_cast<int64_t>(sizeof(float));
  return num_chunk_slots(shape) * slot_bytes;
}

void decode_attention(const DecodeAttentionArgs& args, CudaHandle stream) {
  check_heads("decode_attention", args.q);
  const StreamState& state = state_of(stream);
  const int64_t num_slots = num_chunk_slots(
      {.num_rows_max = args.q.dim(0), .num_q_heads = args.q.dim(1), .head_dim = args.q.dim(2)});
  auto* states = static_cast<float2*>(args.scratch.data);
  const DecodeParams params{.out = device_data<__nv_bfloat16>(args.out),
                            .q = device_data<__nv_bfloat16>(args.q),
                            .k_pages = device_data<__nv_bfloat16>(args.k_pages),
                            .v_pages = device_data<__nv_bfloat16>(args.v_pages),
                            .block_tables = args.block_tables.as<int32_t>(),
                            .context_lens = args.context_lens.as<int32_t>(),
                            .states = states,
                            .partials = reinterpret_cast<float*>(states + num_slots),
                            .num_rows = static_cast<int32_t>(args.q.dim(0)),
                            .num_q_heads = static_cast<int32_t>(args.q.dim(1)),
                            .num_kv_heads = static_cast<int32_t>(args.k_pages.dim(1)),
                            .max_pages = static_cast<int32_t>(args.block_tables.dim(1)),
                            .scale_log2 = args.scale * std::numbers::log2e_v<float>};
  if (params.num_rows == 0) return;
  args.q.dim(2) == 64 ? launch<64>(params, state) : launch<128>(params, state);
}

}  // namespace pbserve::kernels::cuda
