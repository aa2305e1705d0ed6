// One block per row of y; ids are read on the device, so a step's ids need no visit to the host.
#include "kernels/ops/embedding.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/trap.cuh"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <class To, class From>
struct Params {
  To* y;                 // [T, C]
  const int32_t* ids;    // [S]
  const int32_t* index;  // [T] or null
  const From* table;     // [V, C]
  int64_t width;         // C
  int64_t num_ids;       // S
  int64_t vocab_size;    // V
};

template <class To, class From, int kVec>
__global__ void __launch_bounds__(kThreads) embedding_kernel(Params<To, From> p) {
  const int64_t row = blockIdx.x;
  const int64_t from = p.index == nullptr ? row : p.index[row];
  trap_unless(from >= 0 && from < p.num_ids);
  const int64_t id = p.ids[from];
  trap_unless(id >= -1 && id < p.vocab_size);
  const int64_t first = static_cast<int64_t>(threadIdx.x) * kVec;
  for (int64_t at = first; at < p.width; at += int64_t{kThreads} * kVec) {
    float values[kVec] = {};
    if (id >= 0) load(values, p.table + id * p.width + at);
    store(p.y + row * p.width + at, values);
  }
}

template <class To, class From>
void gather(const EmbeddingArgs& args, cudaStream_t stream) {
  constexpr int kVec = kVectorOf<From>;
  const Params<To, From> p{.y = device_data<To>(args.y),
                           .ids = args.ids.as<int32_t>(),
                           .index = device_data_or_null<int32_t>(args.index),
                           .table = device_data<From>(args.table),
                           .width = args.y.dim(1),
                           .num_ids = args.ids.dim(0),
                           .vocab_size = args.table.dim(0)};
  const auto grid = static_cast<unsigned>(args.y.dim(0));
  if (is_vectorizable<kVec>(p.y, p.width) && is_vectorizable<kVec>(p.table, p.width)) {
    embedding_kernel<To, From, kVec><<<grid, kThreads, 0, stream>>>(p);
  } else {
    embedding_kernel<To, From, 1><<<grid, kThreads, 0, stream>>>(p);
  }
  check_launch("embedding");
}

}  // namespace

void embedding(const EmbeddingArgs& args, CudaHandle stream) {
  if (args.y.numel() == 0) return;
  const cudaStream_t to = stream_of(stream);
  if (args.table.dtype == DType::kF32) return gather<float, float>(args, to);
  args.y.dtype == DType::kF32 ? gather<float, __nv_bfloat16>(args, to)
                              : gather<__nv_bfloat16, __nv_bfloat16>(args, to);
}

}  // namespace pbserve::kernels::cuda
