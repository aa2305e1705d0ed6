// Keys come row by row; a matrix product with queries wants them as columns.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {

// a0 b0 a1 b1 ... of the lower and of the upper halves.
#ifdef __AVX512F__
inline Vec zip_low(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Vec zip_high(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
#else
inline Vec zip_low(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Vec zip_high(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}
#endif

// Exchanges row and lane. Zipping rows i and i + kLanes / 2 rotates the bits (row, lane) of an
// element's place by one; log2(kLanes) rounds bring the lane bits to where the row bits were.
inline void transpose_square(Vec (&square)[kLanes]) {
  for (int round = 1; round < kLanes; round *= 2) {
    Vec zipped[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      zipped[2 * i] = zip_low(square[i], square[i + kLanes / 2]);
      zipped[2 * i + 1] = zip_high(square[i], square[i + kLanes / 2]);
    }
    std::copy(zipped, zipped + kLanes, square);
  }
}

// to[c * ldto + r] = from[r * ldfrom + c] in float32 for r < rows, c < columns. Columns come in
// multiples of kLanes; rows up to the next multiple are written as zeros and not read.
template <class T>
void transpose(float* to, int64_t ldto, const T* from, int64_t ldfrom, int64_t rows,
               int64_t columns) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t present = std::min<int64_t>(kLanes, rows - r);
    for (int64_t c = 0; c < columns; c += kLanes) {
      Vec square[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        square[i] = i < present ? load(from + (r + i) * ldfrom + c) : Vec{};
      }
      transpose_square(square);
      for (int64_t i = 0; i < kLanes; ++i) store(to + (c + i) * ldto + r, square[i]);
    }
  }
}

}  // namespace pbserve::kernels::cpu
