// The one choice of backend: every operation checks its arguments, then runs where its stream is.
#include "kernels/ops/args_check.h"

namespace pbserve::kernels {

void rms_norm(const RmsNormArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::rms_norm(args, stream.handle()) : cpu::rms_norm(args, stream.pool());
}

void rope_append(const RopeAppendArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::rope_append(args, stream.handle())
                   : cpu::rope_append(args, stream.pool());
}

void silu_mul(const SiluMulArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::silu_mul(args, stream.handle()) : cpu::silu_mul(args, stream.pool());
}

void embedding(const EmbeddingArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::embedding(args, stream.handle()) : cpu::embedding(args, stream.pool());
}

int64_t packed_weight_numel(Device device, int64_t num_out, int64_t num_in) {
  return device.kind == DeviceKind::kCuda ? cuda::packed_weight_numel(num_out, num_in)
                                          : cpu::packed_weight_numel(num_out, num_in);
}

bool packed_is_row_major(Device device) {
  return device.kind == DeviceKind::kCuda ? cuda::kPackedIsRowMajor : cpu::kPackedIsRowMajor;
}

void pack_weight(const PackWeightArgs& args, const Stream& stream) {
  check_args(args);
  const LinearWeight& weight = args.weight;
  check_eq(weight.packed.numel(),
           packed_weight_numel(stream.device(), weight.num_out, weight.num_in),
           "pack_weight: elements of the packed form");
  stream.is_cuda() ? cuda::pack_weight(args, stream.handle())
                   : cpu::pack_weight(args, stream.pool());
}

void linear(const LinearArgs& args, const Stream& stream) {
  check_args(args);
  const LinearWeight& weight = args.weight;
  check_eq(weight.packed.numel(),
           packed_weight_numel(stream.device(), weight.num_out, weight.num_in),
           "linear: elements of the packed form");
  stream.is_cuda() ? cuda::linear(args, stream.handle()) : cpu::linear(args, stream.pool());
}

void swiglu(const SwigluArgs& args, const Stream& stream) {
  check_args(args);
  const LinearWeight& weight = args.gate_up;
  check_eq(weight.packed.numel(),
           packed_weight_numel(stream.device(), weight.num_out, weight.num_in),
           "swiglu: elements of the packed form");
  if (args.y.numel() == 0) return;
  stream.is_cuda() ? cuda::swiglu(args, stream.handle()) : cpu::swiglu(args, stream.pool());
}

void sample(const SampleArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::sample(args, stream.handle()) : cpu::sample(args, stream.pool());
}

void prefill_attention(const PrefillAttentionArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::prefill_attention(args, stream.handle())
                   : cpu::prefill_attention(args, stream.pool());
}

int64_t decode_scratch_bytes(Device device, const DecodeScratchShape& shape) {
  return device.kind == DeviceKind::kCuda ? cuda::decode_scratch_bytes(shape)
                                          : cpu::decode_scratch_bytes(shape);
}

void decode_attention(const DecodeAttentionArgs& args, const Stream& stream) {
  check_args(args);
  const DecodeScratchShape shape{
      .num_rows_max = args.q.dim(0), .num_q_heads = args.q.dim(1), .head_dim = args.q.dim(2)};
  check(args.scratch.numel() >= decode_scratch_bytes(stream.device(), shape),
        "decode_attention: scratch is too small");
  stream.is_cuda() ? cuda::decode_attention(args, stream.handle())
                   : cpu::decode_attention(args, stream.pool());
}

PbsPlan take_pbs_plan(const PbsPlanShape& shape, Device device, Workspace& workspace) {
  check_args(shape);
  const int64_t key_blocks = ceil_div<int64_t>(shape.context_len_max, kPbsBlock);
  const int64_t query_blocks = ceil_div<int64_t>(shape.job_rows_max, kPbsBlock);
  const int64_t scratch_bytes = device.kind == DeviceKind::kCuda ? cuda::pbs_scratch_bytes(shape)
                                                                 : cpu::pbs_scratch_bytes(shape);
  const auto take_pages = [&] {
    return workspace.take(shape.dtype,
                          {query_blocks, shape.num_kv_heads, kPbsBlock, shape.head_dim});
  };
  return {.own = {.k = take_pages(), .v = take_pages(), .k_mean = {}, .k_var = {}},
          .mask = workspace.take(
              DType::kU32, {shape.num_q_heads, query_blocks, ceil_div<int64_t>(key_blocks, 32)}),
          .scratch = workspace.take(DType::kU8, {scratch_bytes})};
}

void pbs_order(const PbsOrderArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::pbs_order(args, stream.handle()) : cpu::pbs_order(args, stream.pool());
}

void pbs_pool(const PbsPoolArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::pbs_pool(args, stream.handle()) : cpu::pbs_pool(args, stream.pool());
}

void pbs_select(const PbsSelectArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::pbs_select(args, stream.handle()) : cpu::pbs_select(args, stream.pool());
}

void pbs_audit(const PbsAuditArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::pbs_audit(args, stream.handle()) : cpu::pbs_audit(args, stream.pool());
}

int64_t num_audited_rows(const PbsJob& job, int32_t block_begin, int32_t block_end,
                         int32_t dense_tail, int32_t period) {
  int64_t num_rows = 0;
  for (int32_t block = block_begin; block < block_end; ++block) {
    if (!is_audited(job, block, dense_tail, period)) continue;
    const int32_t rows = std::min(kPbsBlock, job.num_rows() - block * kPbsBlock);
    num_rows += std::min(rows, kAuditRows);
  }
  return num_rows;
}

void pbs_force_mask(const PbsForceMaskArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::pbs_force_mask(args, stream.handle())
                   : cpu::pbs_force_mask(args, stream.pool());
}

void pbs_prefill(const PbsPrefillArgs& args, const Stream& stream) {
  check_args(args);
  stream.is_cuda() ? cuda::pbs_prefill(args, stream.handle())
                   : cpu::pbs_prefill(args, stream.pool());
}

}  // namespace pbserve::kernels
