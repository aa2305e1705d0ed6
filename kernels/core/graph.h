// StepGraph: the operations of a step, recorded once from a stream and launched together. It spares
// the host their launches, which at small batches take longer than the operations.
#pragma once

#include <functional>

#include "kernels/core/status.h"
#include "kernels/core/stream.h"

namespace pbserve::kernels {

class StepGraph {
 public:
  static bool is_supported(Device device);  // on a GPU

  // Keeps what `operations` queues on the stream, without running it: shapes and addresses as they
  // are, contents as they will be at each launch. REQUIRES: is_supported; the operations have run
  // once with these shapes, as first runs load code and choose algorithms; they neither wait for
  // the stream nor copy from or to host memory. kResourceExhausted: no device memory for it.
  static absl::StatusOr<StepGraph> record(const Stream& stream,
                                          const std::function<void()>& operations);
  StepGraph(StepGraph&&) noexcept;
  StepGraph& operator=(StepGraph&&) noexcept;
  ~StepGraph();

  // Queues all of it. REQUIRES: the stream it was recorded from.
  void launch(const Stream& stream) const;

 private:
  explicit StepGraph(CudaHandle handle) : handle_(handle) {}

  CudaHandle handle_ = nullptr;
};

// What the CUDA backend provides; only graph.cc calls it.
namespace cuda {
void begin_recording(CudaHandle stream);
absl::StatusOr<CudaHandle> end_recording(CudaHandle stream);  // the graph, ready to launch
void launch_graph(CudaHandle graph, CudaHandle stream);
void destroy_graph(CudaHandle graph);
}  // namespace cuda

}  // namespace pbserve::kernels
