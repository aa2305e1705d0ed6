// Stream: the order in which operations run on one device. On the CPU operations run at once, so
// waiting is free; engine code is written for the asynchronous case and needs no branch.
#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "kernels/core/device.h"
#include "kernels/core/thread_pool.h"

namespace pbserve::kernels {

using CudaHandle = void*;  // of a stream, an event or a graph; opaque outside kernels/cuda/

// On: a row's result does not depend on the rows beside it, bit for bit. The CPU is always so; a
// GPU gives up some speed of its matrix products for it.
enum class Determinism : uint8_t { kOff, kOn };

class Stream {
 public:
  static absl::StatusOr<Stream> create(Device device, int cpu_threads,
                                       Determinism determinism = Determinism::kOff);

  // Two streams of one GPU that run side by side: the first has `num_sms` of its multiprocessors
  // (SMs) to itself, rounded up to what the GPU can part, the second the others. Buffers, events
  // and the GPU's other streams know no difference. kInvalidArgument: no such number of SMs, or no
  // GPU. kUnavailable: the driver has no partitions.
  static absl::StatusOr<std::pair<Stream, Stream>> partition(
      Device device, int num_sms, Determinism determinism = Determinism::kOff);

  // A stream of a GPU whose kernels start before those that wait in its other streams. What runs is
  // not interrupted.
  static absl::StatusOr<Stream> create_urgent(Device device,
                                              Determinism determinism = Determinism::kOff);

  Stream(Stream&&) noexcept;
  Stream& operator=(Stream&&) noexcept;
  ~Stream();

  bool is_cuda() const { return device_.kind == DeviceKind::kCuda; }
  Device device() const { return device_; }
  CudaHandle handle() const { return handle_; }
  int num_sms() const;                         // that its kernels run on; 0 on the CPU
  ThreadPool& pool() const { return *pool_; }  // REQUIRES: !is_cuda()

  void synchronize() const;

  // Makes the stream's GPU the current one of the calling thread. Every thread but the one that
  // made the stream does so before it uses it.
  void bind_thread() const;

 private:
  Stream() = default;

  Device device_;
  CudaHandle handle_ = nullptr;
  std::unique_ptr<ThreadPool> pool_;
};

// A mark in a stream's order, with the time it was reached. On the CPU that is as soon as it is
// recorded.
class Event {
 public:
  explicit Event(const Stream& stream);
  Event(Event&&) noexcept;
  Event& operator=(Event&&) noexcept;
  ~Event();

  void record(const Stream& stream);
  // What is queued on `stream` from now on, any stream of the device, runs after the last record.
  void hold(const Stream& stream) const;
  bool is_reached() const;  // the last record
  void wait() const;        // blocks the calling thread until the last record is reached
  // Device time between two marks. REQUIRES: both were recorded and reached.
  double ms_since(const Event& earlier) const;

 private:
  CudaHandle handle_ = nullptr;
  std::chrono::steady_clock::time_point time_;  // on the CPU
};

// What the CUDA backend provides; only stream.cc calls it.
namespace cuda {
absl::StatusOr<CudaHandle> create_stream(int index, Determinism determinism);
absl::StatusOr<CudaHandle> create_urgent_stream(int index, Determinism determinism);
absl::StatusOr<std::pair<CudaHandle, CudaHandle>> create_partition(int index, int num_sms,
                                                                   Determinism determinism);
void destroy_stream(CudaHandle stream);
int num_sms(CudaHandle stream);
void synchronize(CudaHandle stream);
void bind_thread(CudaHandle stream);
CudaHandle create_event();
void destroy_event(CudaHandle event);
void record_event(CudaHandle event, CudaHandle stream);
void hold_stream(CudaHandle stream, CudaHandle event);
bool is_event_reached(CudaHandle event);
void wait_event(CudaHandle event);
double ms_between(CudaHandle earlier, CudaHandle later);
}  // namespace cuda

}  // namespace pbserve::kernels
