// CopyStream: copies between host and device in an order of their own, beside the compute stream:
// they neither wait for its operations nor delay them unless told to. On the CPU a copy is a memcpy
// at once, and waiting is free.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/stream.h"

namespace pbserve::kernels {

// `num_rows` rows of `row_bytes`, `to_pitch` and `from_pitch` bytes apart. Host memory is pinned
// (PinnedBuffer) and stays valid until the copy has run.
struct RowCopy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  int64_t to_pitch = 0;
  int64_t from_pitch = 0;
  int64_t row_bytes = 0;
  int64_t num_rows = 0;
};

class CopyMark;

class CopyStream {
 public:
  static absl::StatusOr<CopyStream> create(Device device);
  CopyStream(CopyStream&&) noexcept;
  CopyStream& operator=(CopyStream&&) noexcept;
  ~CopyStream();  // waits for its copies

  // One launch each, whatever the number of rows.
  void copy_to_host(const RowCopy& rows) const;
  void copy_to_device(const RowCopy& rows) const;

  // What is copied from here on waits for all that is queued in `compute` so far, or for the mark.
  void wait_for(const Stream& compute) const;
  void wait_for(const CopyMark& mark) const;

 private:
  friend class CopyMark;
  CopyStream() = default;

  CudaHandle handle_ = nullptr;   // null on the CPU
  CudaHandle compute_ = nullptr;  // event: how far the compute stream was at the last wait
};

// A place in the order of a CopyStream.
class CopyMark {
 public:
  explicit CopyMark(const CopyStream& stream);
  CopyMark(CopyMark&&) noexcept;
  CopyMark& operator=(CopyMark&&) noexcept;
  ~CopyMark();

  void record(const CopyStream& stream);
  bool is_reached() const;                      // the last record
  void hold_back(const Stream& compute) const;  // what is queued there from here on waits for it

 private:
  friend class CopyStream;
  CudaHandle handle_ = nullptr;
};

// What the CUDA backend provides; only copy_stream.cc calls it.
namespace cuda {
absl::StatusOr<CudaHandle> create_copy_stream(int index);
void wait_in_stream(CudaHandle stream, CudaHandle event);
void copy_rows_to_host(const RowCopy& rows, CudaHandle stream);
void copy_rows_to_device(const RowCopy& rows, CudaHandle stream);
}  // namespace cuda

}  // namespace pbserve::kernels
