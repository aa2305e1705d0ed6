// Streams that only copy, and copies of rows.
#include "kernels/core/copy_stream.h"

#include <vector>

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

// cudaDevAttrMaxPitch of every GPU so far: strided copies take no larger one.
constexpr int64_t kPitchMax = (int64_t{1} << 31) - 1;

// Rows too far apart for a strided copy, each of them by itself, in one call.
void copy_single_rows(const RowCopy& rows, cudaStream_t stream) {
  std::vector<void*> to;
  std::vector<const void*> from;
  for (int64_t i = 0; i < rows.num_rows; ++i) {
    to.push_back(rows.to + i * rows.to_pitch);
    from.push_back(rows.from + i * rows.from_pitch);
  }
  const std::vector<size_t> sizes(to.size(), static_cast<size_t>(rows.row_bytes));
  cudaMemcpyAttributes attributes{};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  size_t first = 0;  // the attributes are those of all copies from here on
  check_cuda(cudaMemcpyBatchAsync(to.data(), from.data(), sizes.data(), sizes.size(), &attributes,
                                  &first, 1, stream),
             "copies of rows");
}

void copy_rows(const RowCopy& rows, cudaMemcpyKind kind, cudaStream_t stream) {
  if (rows.num_rows == 0) return;
  if (rows.to_pitch > kPitchMax || rows.from_pitch > kPitchMax) {
    return copy_single_rows(rows, stream);
  }
  const auto size = [](int64_t value) { return static_cast<size_t>(value); };
  check_cuda(cudaMemcpy2DAsync(rows.to, size(rows.to_pitch), rows.from, size(rows.from_pitch),
                               size(rows.row_bytes), size(rows.num_rows), kind, stream),
             "copy of rows");
}

}  // namespace

absl::StatusOr<CudaHandle> create_copy_stream(int index) {
  RETURN_IF_ERROR(to_status(cudaSetDevice(index), "GPU selection"));
  auto state = std::make_unique<StreamState>();
  state->device_index = index;
  RETURN_IF_ERROR(to_status(cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking),
                            "creation of a stream for copies"));
  return CudaHandle(state.release());
}

void wait_in_stream(CudaHandle stream, CudaHandle event) {
  check_cuda(cudaStreamWaitEvent(stream_of(stream), static_cast<cudaEvent_t>(event), 0),
             "wait of a stream for an event");
}

void copy_rows_to_host(const RowCopy& rows, CudaHandle stream) {
  copy_rows(rows, cudaMemcpyDeviceToHost, stream_of(stream));
}

void copy_rows_to_device(const RowCopy& rows, CudaHandle stream) {
  copy_rows(rows, cudaMemcpyHostToDevice, stream_of(stream));
}

}  // namespace pbserve::kernels::cuda
