// One register of float32 lanes and the few functions on it that the CPU kernels share. The vector
// types of GCC and Clang keep one source for AVX-512 (16 lanes) and AVX2 (8 lanes); code above this
// file speaks of kLanes only.
#pragma once

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/core/dtype.h"

namespace pbserve::kernels::cpu {

#ifdef __AVX512F__
inline constexpr int kLanes = 16;
#else
inline constexpr int kLanes = 8;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t VecU32 __attribute__((vector_size(kLanes * 4)));
typedef uint16_t VecU16 __attribute__((vector_size(kLanes * 2)));

// The same types at any address.
typedef float UnalignedVec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint16_t UnalignedVecU16 __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

inline Vec splat(float value) { return value - Vec{}; }  // x - 0 is x, x + 0 is not for -0

inline Vec load(const float* from) { return *reinterpret_cast<const UnalignedVec*>(from); }

inline Vec load(const BF16* from) {
  const VecU16 half = *reinterpret_cast<const UnalignedVecU16*>(from);
#ifdef __AVX512F__  // One instruction, where GCC 12 makes four of __builtin_convertvector; its zero
                    // mask is for GCC bug 105593 (a false warning) and costs nothing.
  const __m512i all = _mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(half));
  const VecU32 wide = reinterpret_cast<VecU32>(all);
#else
  const VecU32 wide = __builtin_convertvector(half, VecU32);
#endif
  return reinterpret_cast<Vec>(wide << 16);
}

inline void store(float* to, Vec value) { *reinterpret_cast<UnalignedVec*>(to) = value; }

// Rounds as from_f32<BF16> does.
inline void store(BF16* to, Vec value) {
  const VecU32 bits = reinterpret_cast<VecU32>(value);
  const VecU32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const VecU32 nan = (bits >> 16) | 0x40u;
  const VecU32 chosen = (bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
  *reinterpret_cast<UnalignedVecU16*>(to) = __builtin_convertvector(chosen, VecU16);
}

// The first `count` lanes, count in [1, kLanes]; the others read as zero and are not written.
template <class T>
Vec load(const T* from, int64_t count) {
  if (count == kLanes) return load(from);
  T lanes[kLanes] = {};
  std::memcpy(lanes, from, static_cast<size_t>(count) * sizeof(T));
  return load(lanes);
}

template <class T>
void store(T* to, Vec value, int64_t count) {
  if (count == kLanes) return store(to, value);
  T lanes[kLanes];
  store(lanes, value);
  std::memcpy(to, lanes, static_cast<size_t>(count) * sizeof(T));
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }

// Horizontal results add and compare in a fixed tree: lane i with lane i + kLanes / 2,
// and so on down to + 1.
inline float sum(Vec value) {
  float lanes[kLanes];
  store(lanes, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

inline float max(Vec value) {
  float lanes[kLanes];
  store(lanes, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
}

// e^x within 2 ulp; 0 below -87 (where float32 leaves its normal range), infinity above 88.72, NaN
// for NaN. x = n ln2 + r with |r| <= ln2 / 2; e^r by its Taylor series up to r^7 (the rest is below
// 6e-9); n is added to the exponent bits.
inline Vec exp(Vec x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2Hi = 0.693145752f;     // 13 trailing zero bits: n * kLn2Hi is exact
  constexpr float kLn2Lo = 1.42860677e-6f;   // ln 2 - kLn2Hi
  constexpr float kRoundToInt = 12582912.f;  // 1.5 * 2^23: the sum's low bits hold the integer
  const Vec shifted = x * kLog2E + kRoundToInt;
  const Vec n = shifted - kRoundToInt;
  const Vec r = (x - n * kLn2Hi) - n * kLn2Lo;
  Vec p = r * (1.f / 5040) + (1.f / 720);
  p = p * r + (1.f / 120);
  p = p * r + (1.f / 24);
  p = p * r + (1.f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const VecU32 exponent = reinterpret_cast<VecU32>(shifted) << 23;
  Vec y = reinterpret_cast<Vec>(reinterpret_cast<VecU32>(p) + exponent);
  y = x < -87.f ? Vec{} : y;
  y = x > 88.72f ? splat(std::numeric_limits<float>::infinity()) : y;
  return x != x ? x : y;
}

}  // namespace pbserve::kernels::cpu
