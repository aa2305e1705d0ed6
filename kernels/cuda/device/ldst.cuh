// Loads and stores of several consecutive elements, widened to float32 in registers. One access of
// up to 16 bytes per instruction; a longer run is several.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/device_data.h"

namespace pbserve::kernels::cuda {

// Elements of T in the widest access of a thread.
template <class T>
inline constexpr int kVectorOf = 16 / static_cast<int>(sizeof(T));

// True if rows of `width` elements from `data` on can be accessed kCount elements at a time. An
// absent operand is no obstacle.
template <int kCount, class T>
bool is_vectorizable(const T* data, int64_t width) {
  constexpr size_t kBytes = sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16;
  return width % kCount == 0 && reinterpret_cast<uintptr_t>(data) % kBytes == 0;
}

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

// Rounds to nearest even, as from_f32 does on the host.
template <class T>
__device__ __forceinline__ T narrow(float value);
template <>
__device__ __forceinline__ float narrow<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Consecutive elements of T in registers.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T at[kCount];
};

// The word that moves kBytes in one access.
template <int kBytes>
struct WordOf;
template <>
struct WordOf<2> {
  using Type = unsigned short;
};
template <>
struct WordOf<4> {
  using Type = unsigned;
};
template <>
struct WordOf<8> {
  using Type = uint2;
};
template <>
struct WordOf<16> {
  using Type = uint4;
};
template <class Object>
using Word = typename WordOf<sizeof(Object) < 16 ? sizeof(Object) : 16>::Type;

// Instructions by name: the compiler splits stores of aggregates whose elements took branches.
__device__ __forceinline__ void store_word(uint4* to, uint4 w) {
  asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w)
               : "memory");
}
__device__ __forceinline__ void store_word(uint2* to, uint2 w) {
  asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w.x), "r"(w.y) : "memory");
}
__device__ __forceinline__ void store_word(unsigned* to, unsigned w) { *to = w; }
__device__ __forceinline__ void store_word(unsigned short* to, unsigned short w) { *to = w; }

// REQUIRES, here and below: the address is a multiple of the smaller of 16 and kCount * sizeof(T).
template <int kCount, class T>
__device__ __forceinline__ Pack<T, kCount> load_pack(const T* from) {
  using W = Word<Pack<T, kCount>>;
  W words[sizeof(Pack<T, kCount>) / sizeof(W)];
#pragma unroll
  for (unsigned i = 0; i < sizeof(words) / sizeof(W); ++i) {
    words[i] = reinterpret_cast<const W*>(from)[i];
  }
  Pack<T, kCount> pack;
  memcpy(&pack, words, sizeof(pack));
  return pack;
}

template <class T, int kCount>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, kCount>& pack) {
  using W = Word<Pack<T, kCount>>;
  W words[sizeof(pack) / sizeof(W)];
  memcpy(words, &pack, sizeof(pack));
#pragma unroll
  for (unsigned i = 0; i < sizeof(words) / sizeof(W); ++i)
    store_word(reinterpret_cast<W*>(to) + i, words[i]);
}

template <class T, int kCount>
__device__ __forceinline__ void load(float (&to)[kCount], const T* from) {
  const Pack<T, kCount> pack = load_pack<kCount>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = widen(pack.at[i]);
}

template <class T, int kCount>
__device__ __forceinline__ void store(T* to, const float (&from)[kCount]) {
  Pack<T, kCount> pack;
  if constexpr (sizeof(T) == 2 && kCount % 2 == 0) {  // one instruction rounds two
    __nv_bfloat162 pairs[kCount / 2];
#pragma unroll
    for (int i = 0; i < kCount; i += 2) pairs[i / 2] = __floats2bfloat162_rn(from[i], from[i + 1]);
    memcpy(&pack, pairs, sizeof(pack));
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.at[i] = narrow<T>(from[i]);
  }
  store_pack(to, pack);
}

}  // namespace pbserve::kernels::cuda
