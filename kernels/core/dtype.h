// Storage types of tensors. Arithmetic is always float32; 16-bit types only store.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/core/check.h"

namespace pbserve::kernels {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64, kU8, kU32, kU64 };

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return 1;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kI64:
    case DType::kU64:
      return 8;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  constexpr std::string_view kNames[] = {"float32", "bfloat16", "float16", "int32",
                                         "int64",   "uint8",    "uint32",  "uint64"};
  return kNames[static_cast<size_t>(dtype)];
}

// bfloat16: the upper half of a float32; rounds to nearest even.
struct BF16 {
  uint16_t bits;
};

constexpr float to_f32(float value) { return value; }
constexpr float to_f32(BF16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

template <class T>
constexpr T from_f32(float value);

template <>
constexpr float from_f32<float>(float value) {
  return value;
}

template <>
constexpr BF16 from_f32<BF16>(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {  // NaN stays NaN: rounding could carry it to infinity
    return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  }
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// IEEE half, read from checkpoints only: nothing computes in it.
float f16_bits_to_f32(uint16_t bits);

template <class T>
inline constexpr DType kDTypeOf = DType::kU8;
template <>
inline constexpr DType kDTypeOf<float> = DType::kF32;
template <>
inline constexpr DType kDTypeOf<BF16> = DType::kBF16;
template <>
inline constexpr DType kDTypeOf<int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<int64_t> = DType::kI64;
template <>
inline constexpr DType kDTypeOf<uint32_t> = DType::kU32;
template <>
inline constexpr DType kDTypeOf<uint64_t> = DType::kU64;

}  // namespace pbserve::kernels
