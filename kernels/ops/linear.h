// y = x W^T + b. Weights are laid out once, at load, in the order the backend reads them.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::kernels {

// A matrix [N, K] in the backend's own layout; only `linear` reads it.
struct LinearWeight {
  Tensor packed;
  int64_t num_out = 0;  // N
  int64_t num_in = 0;   // K
};

// Elements the packed form of an [N, K] matrix takes on this device (>= N * K).
int64_t packed_weight_numel(Device device, int64_t num_out, int64_t num_in);

// Whether the packed form on this device is the matrix itself, row-major [N, K]: a tensor that lies
// there so, as the embedding does, then serves as a weight without a copy.
bool packed_is_row_major(Device device);

// Writes rows [row_begin, row_begin + rows.dim(0)) of the matrix into its packed form, so that
// q, k and v (or gate and up) land in one fused matrix.
struct PackWeightArgs {
  LinearWeight weight;  // packed.data is written
  Tensor rows;          // [n, K] on the host, the packed form's dtype
  int64_t row_begin;
};
void pack_weight(const PackWeightArgs& args, const Stream& stream);

struct LinearArgs {
  Tensor y;             // [T, N]: x's dtype, or float32
  Tensor x;             // [T, K]
  LinearWeight weight;  // x's dtype
  Tensor bias;          // [N] float32, or empty; a GPU rounds it to y's dtype first, and wants
                        // rows of x and y of whole 16-byte vectors with it
};

// Every output element is one float32 sum over k in ascending order, whatever T is: a row's result
// does not depend on the rows beside it. (CPU; on the GPU with a deterministic stream.)
// A GPU searches for an algorithm at the first product of a weight's shape with more rows than one
// power of two and no more than the next.
void linear(const LinearArgs& args, const Stream& stream);

namespace cpu {
inline constexpr bool kPackedIsRowMajor = false;
int64_t packed_weight_numel(int64_t num_out, int64_t num_in);
void pack_weight(const PackWeightArgs& args, ThreadPool& pool);
void linear(const LinearArgs& args, ThreadPool& pool);
}  // namespace cpu
namespace cuda {
// Here, so that a build without CUDA can plan a GPU's memory.
inline constexpr bool kPackedIsRowMajor = true;
constexpr int64_t packed_weight_numel(int64_t num_out, int64_t num_in) { return num_out * num_in; }
void pack_weight(const PackWeightArgs& args, CudaHandle stream);
void linear(const LinearArgs& args, CudaHandle stream);
}  // namespace cuda

}  // namespace pbserve::kernels
