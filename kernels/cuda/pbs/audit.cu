// pbs_audit: which blocks are audited, and the merge of what their chunks of keys gave.

#include "kernels/cuda/device/dependent.cuh"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/softmax.cuh"
#include "kernels/cuda/launch_dependent.h"
#include "kernels/cuda/pbs/audit_state.cuh"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kMergeLanes = 16;  // chunks are dealt out to them by turns
constexpr int kMergeThreads = kMergeLanes * kAuditRows;

// Block (head, audited block). Shares are rounded row by row: the sum does not depend on who adds.
__global__ void __launch_bounds__(kMergeThreads)
    merge_audits_kernel(const __grid_constant__ AuditParams p) {
  __shared__ AuditState states[kMergeLanes][kAuditRows];
  wait_for_earlier_kernels();
  const int head = blockIdx.x;
  const int row = threadIdx.x % kAuditRows;
  const int lane = threadIdx.x / kAuditRows;
  const AuditBlock block = audit_block(p, blockIdx.y);
  const float4* partials =
      p.partials + (int64_t{blockIdx.y} * p.num_q_heads + head) * p.num_chunks * kAuditRows + row;
  AuditState state = no_mass();
  for (int chunk = lane; chunk < num_chunks_of(block); chunk += kMergeLanes) {
    const float4 partial = partials[chunk * kAuditRows];
    state = merged(state, {.top = partial.x, .taken = partial.y, .missed = partial.z});
  }
  states[lane][row] = state;
  __syncthreads();
  if (threadIdx.x >= kWarpSize) return;
  state = states[0][row];
  for (int i = 1; i < kMergeLanes; ++i) state = merged(state, states[i][row]);
  const double share = double{state.taken} / (double{state.taken} + double{state.missed});
  const bool counts = lane == 0 && row < block.num_rows;
  const unsigned long long units = counts ? __double2ull_rn(share * 0x1p32) : 0;
  const unsigned long long sum = warp_reduce(units, Sum());
  if (threadIdx.x == 0) atomicAdd(&p.coverage[head], sum);
}

// All but the batch.
AuditParams params_of(const PbsAuditArgs& args) {
  using Bf16 = __nv_bfloat16;
  const PbsInput& input = args.input;
  const Tensor& mask = input.plan.mask;
  AuditParams p{};
  p.q = device_data<Bf16>(input.q);
  p.own_k = device_data<Bf16>(input.plan.own.k);
  p.k_pages = device_data<Bf16>(input.pages.k);
  p.pages = device_data<int32_t>(input.block_table);
  p.mask = device_data<uint32_t>(mask);
  p.partials = reinterpret_cast<float4*>(device_data<uint8_t>(input.plan.scratch));
  p.coverage = reinterpret_cast<unsigned long long*>(device_data<int64_t>(args.coverage));
  p.mask_blocks = mask.dim(1);
  p.num_words = static_cast<int32_t>(mask.dim(2));
  p.num_q_heads = static_cast<int32_t>(input.q.dim(1));
  p.num_kv_heads = static_cast<int32_t>(input.pages.k.dim(1));
  p.group = p.num_q_heads / p.num_kv_heads;
  p.job_block = input.job.begin / kPbsBlock;
  p.num_rows = input.job.num_rows();
  p.segment_blocks = input.params.segment / kPbsBlock;
  p.period = args.period;
  p.scale_log2 = input.scale * kLog2E;
  return p;
}

// The audited blocks of the call: `count` of them from `first` on, a period apart. The dense tail
// cuts off the last ones only.
struct Audited {
  int32_t first;
  int32_t count;
};

Audited audited_of(const PbsAuditArgs& args) {
  Audited audited{.first = 0, .count = 0};
  for (int32_t block = args.block_begin; block < args.block_end; ++block) {
    if (!is_audited(args.input.job, block, args.input.params.dense_tail, args.period)) continue;
    if (audited.count++ == 0) audited.first = block;
  }
  return audited;
}

}  // namespace

void merge_audits(const AuditParams& params, cudaStream_t stream) {
  const dim3 grid(params.num_q_heads, params.num_audited);
  launch_dependent(merge_audits_kernel, grid, kMergeThreads, 0, stream, params, "pbs_audit");
}

void pbs_audit(const PbsAuditArgs& args, CudaHandle handle) {
  const PbsInput& input = args.input;
  check_heads("pbs_audit", input.q);
  check(input.scale > 0, "pbs_audit: scale is not positive");
  const Audited audited = audited_of(args);
  AuditParams p = params_of(args);
  const int64_t block_bytes = audit_bytes_per_block(p.num_q_heads, input.job.end);
  const int64_t batch = input.plan.scratch.numel() / block_bytes;
  check(batch > 0, "pbs_audit: scratch");
  const cudaStream_t stream = stream_of(handle);
  for (int32_t done = 0; done < audited.count; done += p.num_audited) {
    p.first_block = audited.first + done * p.period;
    p.num_audited = static_cast<int32_t>(std::min<int64_t>(audited.count - done, batch));
    p.num_chunks = static_cast<int32_t>(num_audit_chunks_max(input.job.end));
    input.q.dim(2) == 64 ? audit_chunks<64>(p, stream) : audit_chunks<128>(p, stream);
    merge_audits(p, stream);
  }
}

}  // namespace pbserve::kernels::cuda
