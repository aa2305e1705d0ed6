// Graphs of recorded operations.
#include "kernels/core/graph.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/stream_state.h"

namespace pbserve::kernels::cuda {
namespace {

cudaGraphExec_t graph_of(CudaHandle handle) { return static_cast<cudaGraphExec_t>(handle); }

}  // namespace

// Other threads may call what a recording forbids, such as an allocation: they are not its concern.
void begin_recording(CudaHandle stream) {
  check_cuda(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal),
             "begin of a recording");
}

absl::StatusOr<CudaHandle> end_recording(CudaHandle stream) {
  constexpr const char* kWhat = "CUDA graph (device.enforce_eager does without)";
  cudaGraph_t recorded = nullptr;
  RETURN_IF_ERROR(to_status(cudaStreamEndCapture(stream_of(stream), &recorded), kWhat));
  cudaGraphExec_t graph = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&graph, recorded, 0);
  cudaGraphDestroy(recorded);
  RETURN_IF_ERROR(to_status(made, kWhat));
  // Without it the first launch brings the graph to the device.
  const cudaError_t uploaded = cudaGraphUpload(graph, stream_of(stream));
  if (uploaded != cudaSuccess) destroy_graph(graph);
  RETURN_IF_ERROR(to_status(uploaded, kWhat));
  return graph;
}

void launch_graph(CudaHandle graph, CudaHandle stream) {
  check_cuda(cudaGraphLaunch(graph_of(graph), stream_of(stream)), "launch of a graph");
}

void destroy_graph(CudaHandle graph) { cudaGraphExecDestroy(graph_of(graph)); }

}  // namespace pbserve::kernels::cuda
