// Descriptions of bf16 tensors for the copy engine: which box of them one copy moves. Boxes are 64
// elements wide (128 bytes) and land with 128-byte swizzle, as device/wgmma.cuh reads them.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/core/tensor.h"

namespace pbserve::kernels::cuda {

// A matrix [num_rows, num_cols] of contiguous rows; a box has `box_rows` rows.
CUtensorMap make_row_map(const void* data, int64_t num_rows, int64_t num_cols, int box_rows);

// One head of a [T, H, D] tensor; a box has `box_rows` rows of T. Rows past T are read as zeros.
CUtensorMap make_head_map(const Tensor& heads, int box_rows);

}  // namespace pbserve::kernels::cuda
