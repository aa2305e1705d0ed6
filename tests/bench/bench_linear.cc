// Matrix products of the demo model's shapes: rows x outputs x inputs, on 1 and 2 threads.
//   bench_linear --benchmark_format=json
#include <benchmark/benchmark.h>

#include "kernels/ops/linear.h"
#include "tests/support/backends.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::Tensor;

// Weights take turns, so that a matrix has left the inner caches when it comes again, as the layers
// of a network do.
constexpr int64_t kNumWeights = 8;

void bench_linear(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const int64_t num_out = state.range(1);
  const int64_t num_in = state.range(2);
  const kernels::Stream stream =
      stream_of({.name = "cpu", .device = {}}, static_cast<int>(state.range(3)));
  std::mt19937 random(1);
  const HostTensor x = random_tensor(DType::kBF16, {rows, num_in}, random);
  const HostTensor y(DType::kBF16, {rows, num_out});
  const HostTensor w = random_tensor(DType::kBF16, {num_out, num_in}, random);
  const int64_t numel = kernels::packed_weight_numel({}, num_out, num_in);
  const HostTensor packed(DType::kBF16, {kNumWeights, numel});
  const auto weight = [&](int64_t i) {
    return kernels::LinearWeight{
        .packed = packed.view().at(i), .num_out = num_out, .num_in = num_in};
  };
  for (int64_t i = 0; i < kNumWeights; ++i) {
    pack_weight({.weight = weight(i), .rows = w.view(), .row_begin = 0}, stream);
  }
  int64_t turn = 0;
  for (auto _ : state) {
    linear({.y = y.view(), .x = x.view(), .weight = weight(turn++ % kNumWeights), .bias = {}},
           stream);
  }
  const double flops = 2. * static_cast<double>(rows * num_out * num_in);
  const double bytes = 2. * static_cast<double>(num_out * num_in);
  using benchmark::Counter;
  state.counters["FLOP/s"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["weight B/s"] = Counter(bytes, Counter::kIsIterationInvariantRate);
}

BENCHMARK(bench_linear)
    ->ArgNames({"rows", "out", "in", "threads"})
    ->ArgsProduct({{1, 16, 128, 2048}, {2048}, {384}, {1, 2}})
    ->ArgsProduct({{1, 16, 128, 2048}, {384}, {1024}, {1, 2}})
    ->ArgsProduct({{1, 16}, {4096}, {384}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace pbserve::test

BENCHMARK_MAIN();
