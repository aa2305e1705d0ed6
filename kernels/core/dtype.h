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

// The storage type of T. Of the types that are not named here a tensor can hold none: to ask for
// one does not compile.
template <class T>
struct StorageOf;
template <DType dtype>
struct StorageIs {
  static constexpr DType kDType = dtype;
};
template <>
struct StorageOf<float> : StorageIs<DType::kF32> {};
template <>
struct StorageOf<BF16> : StorageIs<DType::kBF16> {};
template <>
struct StorageOf<int32_t> : StorageIs<DType::kI32> {};
template <>
struct StorageOf<int64_t> : StorageIs<DType::kI64> {};
template <>
struct StorageOf<uint8_t> : StorageIs<DType::kU8> {};
template <>
struct StorageOf<uint32_t> : StorageIs<DType::kU32> {};
template <>
struct StorageOf<uint64_t> : StorageIs<DType::kU64> {};

template <class T>
concept Storable = requires {
  StorageOf<T>::kDType;
};
template <Storable T>
inline constexpr DType kDTypeOf = StorageOf<T>::kDType;

}  // namespace pbserve::kernels
