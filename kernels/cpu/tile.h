// The matrix product under linear and attention: C = A B on register tiles.
//
// Every element of C is one accumulator, updated by a fused multiply-add for k = 0, 1, 2, ...
// whatever the tile it falls into. So the result of a row depends neither on how many rows stand
// beside it nor on how the columns are cut, and a sum over k may be cut into several calls with
// Accumulate::kAdd without changing a bit: a token gets the same logits alone and in any batch.
//
// The files that include this are compiled with -ffp-contract=fast (see CMakeLists.txt), which
// makes `acc += a * b` one fused operation in the vector and in the tail code alike.
#pragma once

#include <cstdint>

#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {

enum class Accumulate : uint8_t { kOverwrite, kAdd };

// The accumulators, a row of B and one element of A must fit the registers: 32 on AVX-512, 16 on
// AVX2. A tile of few rows is wider, so that there are enough sums in flight.
inline constexpr int kTileRows = 6;
#ifdef __AVX512F__
constexpr int tile_vecs(int) { return 4; }
#else
constexpr int tile_vecs(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }
#endif

struct TileShape {
  int64_t lda, ldb, ldc, k;
};

// C [kRows, columns] += A [kRows, k] B [k, columns]. columns = kVecs * kLanes, unless kTail: then
// one Vec holds the `tail` columns that remain.
template <int kRows, int kVecs, bool kTail, class B>
void tile(float* c, const float* a, const B* b, TileShape s, Accumulate mode, int64_t tail = 0) {
  static_assert(!kTail || kVecs == 1);
  const int64_t width = kTail ? tail : kLanes;
  Vec acc[kRows][kVecs] = {};
  if (mode == Accumulate::kAdd) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kVecs; ++j) acc[i][j] = load(c + i * s.ldc + j * kLanes, width);
    }
  }
  for (int64_t p = 0; p < s.k; ++p) {
    Vec row[kVecs];
    for (int j = 0; j < kVecs; ++j) row[j] = load(b + p * s.ldb + j * kLanes, width);
    for (int i = 0; i < kRows; ++i) {
      const float value = a[i * s.lda + p];
      for (int j = 0; j < kVecs; ++j) acc[i][j] += value * row[j];
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVecs; ++j) store(c + i * s.ldc + j * kLanes, acc[i][j], width);
  }
}

// kRows rows of C, all n columns.
template <int kRows, class B>
void tile_row(float* c, const float* a, const B* b, TileShape s, int64_t n, Accumulate mode) {
  constexpr int kVecs = tile_vecs(kRows);
  constexpr int64_t kWidth = kVecs * kLanes;
  int64_t j = 0;
  for (; j + kWidth <= n; j += kWidth) tile<kRows, kVecs, false>(c + j, a, b + j, s, mode);
  for (; j + kLanes <= n; j += kLanes) tile<kRows, 1, false>(c + j, a, b + j, s, mode);
  if (j < n) tile<kRows, 1, true>(c + j, a, b + j, s, mode, n - j);
}

// C [m, n] (row stride ldc) = (kAdd ? C : 0) + A [m, k] (row stride lda) x B [k, n] (row stride
// ldb; float or BF16). Fastest with n a multiple of 64, k n sizeof(B) within the L2 cache, and lda
// not a multiple of 256 floats (rows of A that fall into the same cache set evict each other).
template <class B>
void matmul(float* c, int64_t ldc, const float* a, int64_t lda, const B* b, int64_t ldb, int64_t m,
            int64_t n, int64_t k, Accumulate mode) {
  constexpr int64_t kPanel = 64;  // columns of B that stay in cache over all rows
  const TileShape s{.lda = lda, .ldb = ldb, .ldc = ldc, .k = k};
  for (int64_t j = 0; j < n; j += kPanel) {
    const int64_t columns = n - j < kPanel ? n - j : kPanel;
    int64_t i = 0;
    for (; i + kTileRows <= m; i += kTileRows) {
      tile_row<kTileRows>(c + i * ldc + j, a + i * lda, b + j, s, columns, mode);
    }
    for (; i + 2 <= m; i += 2) tile_row<2>(c + i * ldc + j, a + i * lda, b + j, s, columns, mode);
    if (i < m) tile_row<1>(c + i * ldc + j, a + i * lda, b + j, s, columns, mode);
  }
}

}  // namespace pbserve::kernels::cpu
