// Matrix products of a warp (PTX ISA, mma.sync m16n8k16): bf16 operands, float32 sums, fragments
// from tiles in shared memory by ldmatrix.
//
// Operand tiles lie in shared memory as rows along the sum, 64 or 128 elements, with the 16-byte
// chunks of a row exchanged: chunk c of row r lies at chunk c ^ (r % 8). So the eight rows that one
// ldmatrix phase reads fall into different banks. With 64 elements this is the 128-byte swizzle of
// device/wgmma.cuh.
#pragma once

#include <cstdint>

namespace pbserve::kernels::cuda {

// Byte offset of a 16-byte chunk (8 elements) in a tile of rows of kCols elements.
template <int kCols>
__device__ __forceinline__ uint32_t tile_offset(int row, int chunk) {
  static_assert(kCols == 64 || kCols == 128);
  return static_cast<uint32_t>(row * kCols * 2 + ((chunk ^ (row & 7)) << 4));
}

// Where this lane's row of an `a` fragment (16 rows from `row` on) or of two `b` fragments (16
// columns: rows of the tile) starts. REQUIRES: the tile starts at a multiple of its row's bytes,
// row at a multiple of 8. The fragment of elements [16 k, 16 k + 16) is at lane_address ^ 32 k; 16
// rows further it is at + 16 * kCols * 2.
template <int kCols>
__device__ __forceinline__ uint32_t a_lane_address(uint32_t tile, int row, int lane) {
  return tile + tile_offset<kCols>(row + lane % 16, lane / 16);
}
template <int kCols>
__device__ __forceinline__ uint32_t b_lane_address(uint32_t tile, int row, int lane) {
  return tile + tile_offset<kCols>(row + lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

// Four 8x8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&to)[4], uint32_t lane_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(lane_address)
               : "memory");
}

// d [16, 8] += a [16, 16] b [8, 16]^T. Lane l holds of d the rows l / 4 (d[0], d[1]) and l / 4 + 8
// (d[2], d[3]), columns 2 (l % 4) and the next.
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b_low,
                                    uint32_t b_high) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

// The other orientation of the right operand: tiles whose columns run along the sum, such as values
// [tokens, D] in a product with weights [heads, tokens].
// With lane addresses of a_lane_address(tile, row, lane) ^ 32 k: to[0], to[1] are the `b` fragment
// of the columns [16 k, 16 k + 8) and of the 16 rows from `row` on, to[2], to[3] that of the eight
// columns after them.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&to)[4], uint32_t lane_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(lane_address)
               : "memory");
}

}  // namespace pbserve::kernels::cuda
