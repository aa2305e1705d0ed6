// Matrix products through cuBLASLt. The library is loaded when the first stream is made and not
// linked, so that a program built with CUDA starts on a machine without it. Algorithms are chosen
// once per problem and kept.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/core/status.h"
#include "kernels/core/stream.h"
#include "kernels/ops/linear.h"

namespace pbserve::kernels::cuda {

class Matmul {
 public:
  // Takes the workspace that all products share. kUnavailable: the library is missing; says where
  // it was looked for. With Determinism::kOn a weight uses one algorithm for every number of rows,
  // on every stream; else algorithms are chosen for `num_sms` multiprocessors, 0 = the GPU's.
  static absl::StatusOr<std::unique_ptr<Matmul>> create(Determinism determinism, int num_sms);
  ~Matmul();

  // y = x W^T + b on the stream; the weight is row-major [N, K].
  void run(const LinearArgs& args, cudaStream_t stream);

  bool is_deterministic() const;

 private:
  struct Impl;
  explicit Matmul(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::kernels::cuda
