// One block per row. A thread keeps its part of the row in registers between the two passes, so the
// residual is read once and written once. How a row is split over threads depends on its width
// alone, and with it the order of the sum.
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/stream_state.h"
#include "kernels/ops/norm.h"

namespace pbserve::kernels::cuda {
namespace {

// Vectors a thread keeps. A row that is longer than kKept * kVec * threads reads its rest again.
constexpr int kKept = 4;

template <class T>
struct Params {
  T* y;                 // [T, C] or null
  const T* x;           // [T, C] or null
  const float* weight;  // [C], not read without y
  float* residual;      // [T, C]
  int width;            // C
  float eps;
};

template <int kVec>
__device__ __forceinline__ float sum_of_squares(const float (&values)[kVec]) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kVec; ++i) sum += values[i] * values[i];
  return sum;
}

template <class T, int kVec>
__device__ __forceinline__ void scale_and_store(T* y, float (&values)[kVec], const float* weight,
                                                float scale) {
  float factors[kVec];
  load(factors, weight);
#pragma unroll
  for (int i = 0; i < kVec; ++i) values[i] = values[i] * scale * factors[i];
  store(y, values);
}

// values += x, and back into the residual.
template <class T, int kVec>
__device__ __forceinline__ void add_and_store(float (&values)[kVec], const Pack<T, kVec>& x,
                                              float* residual) {
#pragma unroll
  for (int i = 0; i < kVec; ++i) values[i] += widen(x.at[i]);
  store(residual, values);
}

template <class T, int kVec, int kThreads>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads) rms_norm_kernel(Params<T> p) {
  __shared__ float warp_sums[kThreads / kWarpSize];
  constexpr int kStride = kThreads * kVec;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.width;
  float* residual = p.residual + row;
  const T* x = p.x + row;
  const int first = static_cast<int>(threadIdx.x) * kVec;

  float kept[kKept][kVec];
  Pack<T, kVec> addend[kKept];
#pragma unroll
  for (int i = 0; i < kKept; ++i) {  // all loads are on their way before the first store
    const int at = first + i * kStride;
    if (at < p.width) load(kept[i], residual + at);
    if (at < p.width && p.x != nullptr) addend[i] = load_pack<kVec>(x + at);
  }
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = first + i * kStride;
    if (at >= p.width) continue;
    if (p.x != nullptr) add_and_store(kept[i], addend[i], residual + at);
    squares += sum_of_squares(kept[i]);
  }
  for (int at = first + kKept * kStride; at < p.width; at += kStride) {
    float values[kVec];
    load(values, residual + at);
    if (p.x != nullptr) add_and_store(values, load_pack<kVec>(x + at), residual + at);
    squares += sum_of_squares(values);
  }
  if (p.y == nullptr) return;

  const float total = block_reduce<kThreads / kWarpSize>(squares, Sum{}, warp_sums);
  const float scale = 1.f / sqrtf(total / static_cast<float>(p.width) + p.eps);
  T* y = p.y + row;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int at = first + i * kStride;
    if (at < p.width) scale_and_store(y + at, kept[i], p.weight + at, scale);
  }
  for (int at = first + kKept * kStride; at < p.width; at += kStride) {
    float values[kVec];
    load(values, residual + at);
    scale_and_store(y + at, values, p.weight + at, scale);
  }
}

template <class T, int kVec>
void launch(const Params<T>& p, int64_t num_rows, cudaStream_t stream) {
  const auto grid = static_cast<unsigned>(num_rows);
  if (p.width <= 128 * kKept * kVec) {
    rms_norm_kernel<T, kVec, 128><<<grid, 128, 0, stream>>>(p);
  } else if (p.width <= 256 * kKept * kVec) {
    rms_norm_kernel<T, kVec, 256><<<grid, 256, 0, stream>>>(p);
  } else {
    rms_norm_kernel<T, kVec, 512><<<grid, 512, 0, stream>>>(p);
  }
  check_launch("rms_norm");
}

template <class T>
void norm_rows(const RmsNormArgs& args, cudaStream_t stream) {
  check(args.residual.dim(1) <= (1 << 30), "rms_norm: width above 2^30");
  constexpr int kVec = 4;  // 16 bytes of the residual, which is most of the traffic
  const Params<T> p{.y = device_data_or_null<T>(args.y),
                    .x = device_data_or_null<T>(args.x),
                    .weight = args.y.empty() ? nullptr : args.weight.as<float>(),
                    .residual = args.residual.as<float>(),
                    .width = static_cast<int>(args.residual.dim(1)),
                    .eps = args.eps};
  const bool is_wide = is_vectorizable<kVec>(p.y, p.width) && is_vectorizable<kVec>(p.x, p.width) &&
                       is_vectorizable<kVec>(p.weight, p.width) &&
                       is_vectorizable<kVec>(p.residual, p.width);
  is_wide ? launch<T, kVec>(p, args.residual.dim(0), stream)
          : launch<T, 1>(p, args.residual.dim(0), stream);
}

}  // namespace

void rms_norm(const RmsNormArgs& args, CudaHandle stream) {
  if (args.residual.dim(0) == 0) return;
  const DType dtype = args.y.empty() ? args.x.dtype : args.y.dtype;
  dtype == DType::kBF16 ? norm_rows<__nv_bfloat16>(args, stream_of(stream))
                        : norm_rows<float>(args, stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
