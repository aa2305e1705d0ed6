#include "kernels/core/copy_stream.h"

#include <cstring>
#include <utility>

namespace pbserve::kernels {

namespace {

void copy_at_once(const RowCopy& rows) {
  for (int64_t i = 0; i < rows.num_rows; ++i) {
    std::memcpy(rows.to + i * rows.to_pitch, rows.from + i * rows.from_pitch,
                static_cast<size_t>(rows.row_bytes));
  }
}

}  // namespace

absl::StatusOr<CopyStream> CopyStream::create(Device device) {
  CopyStream stream;
  if (device.kind == DeviceKind::kCpu) return stream;
  ASSIGN_OR_RETURN(stream.handle_, cuda::create_copy_stream(device.index));
  stream.compute_ = cuda::create_event();
  return stream;
}

CopyStream::CopyStream(CopyStream&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)),
      compute_(std::exchange(other.compute_, nullptr)) {}

CopyStream& CopyStream::operator=(CopyStream&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(compute_, other.compute_);
  return *this;
}

CopyStream::~CopyStream() {
  if (handle_ == nullptr) return;
  cuda::synchronize(handle_);
  cuda::destroy_event(compute_);
  cuda::destroy_stream(handle_);
}

void CopyStream::copy_to_host(const RowCopy& rows) const {
  handle_ == nullptr ? copy_at_once(rows) : cuda::copy_rows_to_host(rows, handle_);
}

void CopyStream::copy_to_device(const RowCopy& rows) const {
  handle_ == nullptr ? copy_at_once(rows) : cuda::copy_rows_to_device(rows, handle_);
}

void CopyStream::wait_for(const Stream& compute) const {
  if (handle_ == nullptr) return;
  cuda::record_event(compute_, compute.handle());
  cuda::wait_in_stream(handle_, compute_);
}

void CopyStream::wait_for(const CopyMark& mark) const {
  if (handle_ != nullptr) cuda::wait_in_stream(handle_, mark.handle_);
}

CopyMark::CopyMark(const CopyStream& stream)
    : handle_(stream.handle_ == nullptr ? nullptr : cuda::create_event()) {}

CopyMark::CopyMark(CopyMark&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}

CopyMark& CopyMark::operator=(CopyMark&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

CopyMark::~CopyMark() {
  if (handle_ != nullptr) cuda::destroy_event(handle_);
}

void CopyMark::record(const CopyStream& stream) {
  if (handle_ != nullptr) cuda::record_event(handle_, stream.handle_);
}

bool CopyMark::is_reached() const { return handle_ == nullptr || cuda::is_event_reached(handle_); }

void CopyMark::hold_back(const Stream& compute) const {
  if (handle_ != nullptr) cuda::wait_in_stream(compute.handle(), handle_);
}

}  // namespace pbserve::kernels
