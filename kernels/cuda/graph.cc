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

CudaHandle end_recording(CudaHandle stream) {
  cudaGraph_t recorded = nullptr;
  check_cuda(cudaStreamEndCapture(stream_of(stream), &recorded), "end of a recording");
  cudaGraphExec_t graph = nullptr;
  check_cuda(cudaGraphInstantiate(&graph, recorded, 0), "making of a graph");
  check_cuda(cudaGraphDestroy(recorded), "end of a recording");
  // Without it the first launch brings the graph to the device.
  check_cuda(cudaGraphUpload(graph, stream_of(stream)), "upload of a graph");
  return graph;
}

void launch_graph(CudaHandle graph, CudaHandle stream) {
  check_cuda(cudaGraphLaunch(graph_of(graph), stream_of(stream)), "launch of a graph");
}

void destroy_graph(CudaHandle graph) { cudaGraphExecDestroy(graph_of(graph)); }

}  // namespace pbserve::kernels::cuda
