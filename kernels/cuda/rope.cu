// One block per row. Sine and cosine of the row are computed once, into shared memory, and serve
// all its heads; a group of lanes then takes a head at a time, each lane 8 elements of the lower
// half and their 8 partners of the upper.
#include "kernels/ops/rope.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device/ldst.cuh"
#include "kernels/cuda/device/reduce.cuh"
#include "kernels/cuda/device/trap.cuh"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVec = 8;
constexpr int kHeadDimMax = 2 * kVec * kWarpSize;

template <class T>
struct Params {
  T* q;                      // [T, Hq, D]
  T* k_pages;                // [num_pages, Hkv, kPageSize, D]
  T* v_pages;                // [num_pages, Hkv, kPageSize, D]
  const T* qkv;              // [T, Hq + 2 Hkv, D]
  const float* q_norm;       // [D] or null
  const float* k_norm;       // [D] or null
  const float* inv_freq;     // [D / 2]
  const int32_t* positions;  // [T]
  const int64_t* slots;      // [T]
  int64_t num_slots;         // num_pages * kPageSize
  int num_q_heads;
  int num_kv_heads;
  int half_dim;  // D / 2
  float rope_scale;
  float norm_eps;
};

struct alignas(16) Rotation {
  float cos[kHeadDimMax / 2];
  float sin[kHeadDimMax / 2];
};

// sinf and cosf reduce any angle exactly; the product is rounded as on the CPU.
template <class T>
__device__ void set_rotation(Rotation& rotation, const Params<T>& p, int64_t row) {
  const float position = static_cast<float>(p.positions[row]);
  for (int i = threadIdx.x; i < p.half_dim; i += kThreads) {
    float sin;
    float cos;
    sincosf(__fmul_rn(position, p.inv_freq[i]), &sin, &cos);
    rotation.cos[i] = cos * p.rope_scale;
    rotation.sin[i] = sin * p.rope_scale;
  }
}

// Where a head goes: rows of q, then of the K pages, then of the V pages. Null: nowhere.
template <class T>
__device__ T* destination(const Params<T>& p, int64_t row, int64_t slot, int head) {
  const int head_dim = 2 * p.half_dim;
  if (head < p.num_q_heads) return p.q + (row * p.num_q_heads + head) * head_dim;
  if (slot == -1) return nullptr;
  const bool is_k = head < p.num_q_heads + p.num_kv_heads;
  const int kv_head = head - p.num_q_heads - (is_k ? 0 : p.num_kv_heads);
  const int64_t page_head = slot / kPageSize * p.num_kv_heads + kv_head;
  T* pages = is_k ? p.k_pages : p.v_pages;
  return pages + (page_head * kPageSize + slot % kPageSize) * head_dim;
}

// Both halves scaled to a mean square of 1, times the weights. The lanes of a group share a head;
// lanes without elements bring zeros.
template <int kLanes>
__device__ void norm_head(float (&low)[kVec], float (&high)[kVec], const float* weight, int at,
                          int half_dim, float eps) {
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < kVec; ++i) squares += low[i] * low[i] + high[i] * high[i];
  squares = warp_reduce<kLanes>(squares, Sum{});
  const float scale = 1.f / sqrtf(squares / static_cast<float>(2 * half_dim) + eps);
  if (at >= half_dim || weight == nullptr) return;
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    low[i] = low[i] * scale * weight[at + i];
    high[i] = high[i] * scale * weight[half_dim + at + i];
  }
}

__device__ __forceinline__ void rotate(float (&low)[kVec], float (&high)[kVec],
                                       const Rotation& rotation, int at) {
  float cos[kVec];
  float sin[kVec];
  load(cos, rotation.cos + at);
  load(sin, rotation.sin + at);
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    const float turned = low[i] * cos[i] - high[i] * sin[i];
    high[i] = high[i] * cos[i] + low[i] * sin[i];
    low[i] = turned;
  }
}

// kLanes: lanes per head, a power of two with kLanes * kVec >= D / 2.
template <class T, int kLanes>
__global__ void __launch_bounds__(kThreads) rope_append_kernel(Params<T> p) {
  __shared__ Rotation rotation;
  constexpr int kGroups = kThreads / kLanes;
  const int64_t row = blockIdx.x;
  const int64_t slot = p.slots[row];
  trap_unless(slot >= -1 && slot < p.num_slots);
  set_rotation(rotation, p, row);
  __syncthreads();

  const int num_heads = p.num_q_heads + 2 * p.num_kv_heads;
  const int at = static_cast<int>(threadIdx.x) % kLanes * kVec;
  for (int begin = 0; begin < num_heads; begin += kGroups) {  // uniform: lanes meet in norm_head
    const int head = begin + static_cast<int>(threadIdx.x) / kLanes;
    const bool is_present = head < num_heads && at < p.half_dim;
    float low[kVec] = {};
    float high[kVec] = {};
    const T* from = p.qkv + (row * num_heads + head) * 2 * p.half_dim + at;
    if (is_present) {
      load(low, from);
      load(high, from + p.half_dim);
    }
    if (p.q_norm != nullptr || p.k_norm != nullptr) {
      const float* kv_norm = head < p.num_q_heads + p.num_kv_heads ? p.k_norm : nullptr;
      const float* weight = head < p.num_q_heads ? p.q_norm : kv_norm;
      norm_head<kLanes>(low, high, weight, at, p.half_dim, p.norm_eps);
    }
    T* to = is_present ? destination(p, row, slot, head) : nullptr;
    if (to == nullptr) continue;
    if (head < p.num_q_heads + p.num_kv_heads) rotate(low, high, rotation, at);
    store(to + at, low);
    store(to + p.half_dim + at, high);
  }
}

template <class T>
void append_rows(const RopeAppendArgs& args, cudaStream_t stream) {
  const Params<T> p{.q = device_data<T>(args.q),
                    .k_pages = device_data_or_null<T>(args.k_pages),
                    .v_pages = device_data_or_null<T>(args.v_pages),
                    .qkv = device_data<T>(args.qkv),
                    .q_norm = device_data_or_null<float>(args.q_norm),
                    .k_norm = device_data_or_null<float>(args.k_norm),
                    .inv_freq = args.inv_freq.as<float>(),
                    .positions = args.positions.as<int32_t>(),
                    .slots = args.slots.as<int64_t>(),
                    .num_slots = args.k_pages.dim(0) * kPageSize,
                    .num_q_heads = static_cast<int>(args.q.dim(1)),
                    .num_kv_heads = static_cast<int>(args.k_pages.dim(1)),
                    .half_dim = static_cast<int>(args.q.dim(2) / 2),
                    .rope_scale = args.rope_scale,
                    .norm_eps = args.norm_eps};
  const auto grid = static_cast<unsigned>(args.q.dim(0));
  const int vectors = p.half_dim / kVec;
  if (vectors <= 1) {
    rope_append_kernel<T, 1><<<grid, kThreads, 0, stream>>>(p);
  } else if (vectors <= 4) {
    rope_append_kernel<T, 4><<<grid, kThreads, 0, stream>>>(p);
  } else if (vectors <= 8) {
    rope_append_kernel<T, 8><<<grid, kThreads, 0, stream>>>(p);
  } else if (vectors <= 16) {
    rope_append_kernel<T, 16><<<grid, kThreads, 0, stream>>>(p);
  } else {
    rope_append_kernel<T, 32><<<grid, kThreads, 0, stream>>>(p);
  }
  check_launch("rope_append");
}

}  // namespace

void rope_append(const RopeAppendArgs& args, CudaHandle stream) {
  check(args.q.dim(2) <= kHeadDimMax, "rope_append: head size above 512");
  if (args.q.dim(0) == 0) return;
  args.q.dtype == DType::kBF16 ? append_rows<__nv_bfloat16>(args, stream_of(stream))
                               : append_rows<float>(args, stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
