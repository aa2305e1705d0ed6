#include "kernels/core/graph.h"

#include <utility>

#include "kernels/core/check.h"

namespace pbserve::kernels {

bool StepGraph::is_supported(Device device) { return device.kind == DeviceKind::kCuda; }

absl::StatusOr<StepGraph> StepGraph::record(const Stream& stream,
                                            const std::function<void()>& operations) {
  check(is_supported(stream.device()), "a graph of a stream that records nothing");
  cuda::begin_recording(stream.handle());
  operations();
  ASSIGN_OR_RETURN(CudaHandle graph, cuda::end_recording(stream.handle()));
  return StepGraph(graph);
}

StepGraph::StepGraph(StepGraph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}

StepGraph& StepGraph::operator=(StepGraph&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

StepGraph::~StepGraph() {
  if (handle_ != nullptr) cuda::destroy_graph(handle_);
}

void StepGraph::launch(const Stream& stream) const { cuda::launch_graph(handle_, stream.handle()); }

}  // namespace pbserve::kernels
