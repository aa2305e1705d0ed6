#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include <span>
#include <string>

#include "kernels/core/bits.h"
#include "kernels/cuda/cuda_check.h"

namespace pbserve::kernels::cuda {
namespace {

constexpr cuuint32_t kBoxCols = 64;

// The driver's function, found through the runtime: the program does not link the driver.
decltype(&cuTensorMapEncodeTiled) encoder() {
  static const auto function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                                cudaEnableDefault, &result),
               "search for cuTensorMapEncodeTiled");
    check(result == cudaDriverEntryPointSuccess, "the driver lacks cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  return function;
}

// Sizes fastest first; strides in bytes of all dimensions but the first.
CUtensorMap encode(const void* data, std::span<const cuuint64_t> sizes,
                   std::span<const cuuint64_t> strides, std::span<const cuuint32_t> box) {
  static constexpr cuuint32_t kSteps[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(sizes.size()),
                const_cast<void*>(data), sizes.data(), strides.data(), box.data(), kSteps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error " + std::to_string(result));
  return map;
}

}  // namespace

CUtensorMap make_row_map(const void* data, int64_t num_rows, int64_t num_cols, int box_rows) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(num_cols), static_cast<cuuint64_t>(num_rows)};
  const cuuint64_t strides[] = {sizes[0] * sizeof(BF16)};
  const cuuint32_t box[] = {kBoxCols, static_cast<cuuint32_t>(box_rows)};
  return encode(data, sizes, strides, box);
}

CUtensorMap make_head_map(const Tensor& heads, int box_rows) {
  return make_sample_map(heads, 1, box_rows);
}

CUtensorMap make_sample_map(const Tensor& heads, int stride, int box_rows) {
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(heads.dim(2)),
                              static_cast<cuuint64_t>(heads.dim(1)),
                              static_cast<cuuint64_t>(ceil_div<int64_t>(heads.dim(0), stride))};
  const cuuint64_t strides[] = {sizes[0] * sizeof(BF16),
                                stride * sizes[0] * sizes[1] * sizeof(BF16)};
  const cuuint32_t box[] = {kBoxCols, 1, static_cast<cuuint32_t>(box_rows)};
  return encode(heads.data, sizes, strides, box);
}

CUtensorMap make_group_map(const TokenGroups& groups) {
  const auto row_bytes = static_cast<cuuint64_t>(groups.num_heads * groups.head_dim) * sizeof(BF16);
  const auto stride = static_cast<cuuint64_t>(groups.stride);
  const cuuint64_t sizes[] = {
      static_cast<cuuint64_t>(groups.head_dim),
      static_cast<cuuint64_t>(ceil_div<int64_t>(groups.num_tokens, groups.stride)),
      static_cast<cuuint64_t>(groups.num_heads), stride};
  const cuuint64_t strides[] = {stride * row_bytes, sizes[0] * sizeof(BF16), row_bytes};
  const cuuint32_t box[] = {kBoxCols, static_cast<cuuint32_t>(groups.box_groups),
                            static_cast<cuuint32_t>(groups.box_heads), 1};
  // The tensor of the map begins before the data: an address nobody reads.
  const auto begin = reinterpret_cast<uintptr_t>(groups.data) - groups.num_missing() * row_bytes;
  return encode(reinterpret_cast<const void*>(begin), sizes, strides, box);
}

}  // namespace pbserve::kernels::cuda
