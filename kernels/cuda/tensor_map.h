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
// The same of the rows 0, stride, 2 stride... of T alone: a box has `box_rows` of them.
CUtensorMap make_sample_map(const Tensor& heads, int stride, int box_rows);

// The tokens of a [T, H, D] tensor as groups of `stride` consecutive ones. A box holds one token of
// each of `box_groups` groups, for `box_heads` heads: its rows are (head, group).
struct TokenGroups {
  const void* data;  // [num_tokens, num_heads, head_dim]
  int64_t num_tokens;
  int64_t num_heads;
  int64_t head_dim;
  int32_t stride;
  int32_t box_heads;
  int32_t box_groups;

  // So many tokens before the first one would make all groups whole.
  int32_t num_missing() const {
    return static_cast<int32_t>((stride - num_tokens % stride) % stride);
  }
};

// Coordinates are (element, group, head, token of the group), of groups that begin num_missing()
// tokens before the first token: so tokens past T lie in groups past the last and are read as
// zeros. REQUIRES of the reader: no coordinates of tokens before the first.
CUtensorMap make_group_map(const TokenGroups& groups);

}  // namespace pbserve::kernels::cuda
