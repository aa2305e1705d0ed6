#include "kernels/core/buffer.h"
#include "kernels/core/check.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/stream_state.h"
#include "tests/kernels/sm_probe.h"

namespace pbserve::test {
namespace {

__global__ void count_on_sm(int32_t* seen) {
  constexpr long long kCycles = 100'000;
  unsigned sm = 0;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  const long long begin = clock64();
  while (clock64() - begin < kCycles) {
  }
  if (threadIdx.x == 0 && sm < kSmsMax) atomicAdd(&seen[sm], 1);
}

}  // namespace

void probe_sms(const kernels::Tensor& seen, const kernels::Stream& stream) {
  constexpr int kBlocks = 1024;
  constexpr int kThreads = 1024;  // two blocks fill an SM
  count_on_sm<<<kBlocks, kThreads, 0, kernels::cuda::stream_of(stream.handle())>>>(
      seen.as<int32_t>());
  kernels::cuda::check_launch("probe of multiprocessors");
}

std::vector<int> sms_of(const kernels::Stream& stream) {
  constexpr size_t kBytes = kSmsMax * sizeof(int32_t);
  const auto buffer = kernels::DeviceBuffer::create(stream.device(), kBytes);
  check(buffer.ok(), buffer.status().ToString());
  const kernels::Tensor seen(buffer->data(), kernels::DType::kI32, {kSmsMax});
  kernels::fill_zero(seen.data, kBytes, stream);
  probe_sms(seen, stream);
  std::vector<int32_t> counts(kSmsMax);
  kernels::copy_to_host(counts.data(), seen.data, kBytes, stream);
  stream.synchronize();
  std::vector<int> sms;
  for (int sm = 0; sm < kSmsMax; ++sm) {
    if (counts[static_cast<size_t>(sm)] > 0) sms.push_back(sm);
  }
  return sms;
}

}  // namespace pbserve::test
