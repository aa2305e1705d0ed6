// Blocks of threads whose first warpgroup brings what the others compute with.
#pragma once

namespace pbserve::kernels::cuda {

// The first warpgroup gives registers away and has one thread run a Producer; warpgroup i + 1 takes
// them and runs Consumer i. Both are made from (params, shared), the consumers with their number.
// All threads of the block call it, once, and leave it together warp by warp.
template <class Producer, class Consumer, class Config, class Params, class Shared>
__device__ __forceinline__ void produce_and_consume(const Params& params, Shared& shared) {
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Config::kProducerRegisters));
    if (threadIdx.x == 0) Producer(params, shared).run();
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Config::kConsumerRegisters));
    Consumer(params, shared, warpgroup - 1).run();
  }
}

}  // namespace pbserve::kernels::cuda
