#include "kernels/core/stream.h"

#include <utility>

namespace pbserve::kernels {

absl::StatusOr<Stream> Stream::create(Device device, int cpu_threads, Determinism determinism) {
  Stream stream;
  stream.device_ = device;
  if (stream.is_cuda()) {
    ASSIGN_OR_RETURN(stream.handle_, cuda::create_stream(device.index, determinism));
  } else {
    stream.pool_ = std::make_unique<ThreadPool>(cpu_threads);
  }
  return stream;
}

absl::StatusOr<std::pair<Stream, Stream>> Stream::partition(Device device, int num_sms,
                                                            Determinism determinism) {
  if (device.kind != DeviceKind::kCuda) {
    return absl::InvalidArgumentError("the CPU has no multiprocessors to part");
  }
  ASSIGN_OR_RETURN(const auto handles, cuda::create_partition(device.index, num_sms, determinism));
  std::pair<Stream, Stream> streams{Stream(), Stream()};
  streams.first.device_ = streams.second.device_ = device;
  streams.first.handle_ = handles.first;
  streams.second.handle_ = handles.second;
  return streams;
}

absl::StatusOr<Stream> Stream::create_urgent(Device device, Determinism determinism) {
  if (device.kind != DeviceKind::kCuda) {
    return absl::InvalidArgumentError("the CPU has one stream at a time: none is urgent");
  }
  Stream stream;
  stream.device_ = device;
  ASSIGN_OR_RETURN(stream.handle_, cuda::create_urgent_stream(device.index, determinism));
  return stream;
}

Stream::Stream(Stream&& other) noexcept
    : device_(other.device_),
      handle_(std::exchange(other.handle_, nullptr)),
      pool_(std::move(other.pool_)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  std::swap(pool_, other.pool_);
  return *this;
}

Stream::~Stream() {
  if (handle_ != nullptr) cuda::destroy_stream(handle_);
}

int Stream::num_sms() const { return is_cuda() ? cuda::num_sms(handle_) : 0; }

void Stream::synchronize() const {
  if (is_cuda()) cuda::synchronize(handle_);
}

void Stream::bind_thread() const {
  if (is_cuda()) cuda::bind_thread(handle_);
}

Event::Event(const Stream& stream) : handle_(stream.is_cuda() ? cuda::create_event() : nullptr) {}

Event::Event(Event&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), time_(other.time_) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(time_, other.time_);
  return *this;
}

Event::~Event() {
  if (handle_ != nullptr) cuda::destroy_event(handle_);
}

void Event::record(const Stream& stream) {
  if (handle_ != nullptr) {
    cuda::record_event(handle_, stream.handle());
  } else {
    time_ = std::chrono::steady_clock::now();
  }
}

void Event::hold(const Stream& stream) const {
  if (handle_ != nullptr) cuda::hold_stream(stream.handle(), handle_);
}

bool Event::is_reached() const { return handle_ == nullptr || cuda::is_event_reached(handle_); }

void Event::wait() const {
  if (handle_ != nullptr) cuda::wait_event(handle_);
}

double Event::ms_since(const Event& earlier) const {
  if (handle_ != nullptr) return cuda::ms_between(earlier.handle_, handle_);
  return std::chrono::duration<double, std::milli>(time_ - earlier.time_).count();
}

}  // namespace pbserve::kernels
