#include "kernels/ops/activation.h"

#include "kernels/cpu/row_blocks.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {
namespace {

template <class T>
void silu_mul_rows(const SiluMulArgs& args, ThreadPool& pool) {
  const int64_t width = args.y.dim(1);
  const T* gate_up = args.gate_up.as<T>();
  T* y = args.y.as<T>();
  for_each_row(args.y.dim(0), width, pool, [&](int64_t row) {
    const T* gates = gate_up + row * 2 * width;
    const T* ups = gates + width;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, width - i);
      const Vec gate = load(gates + i, count);
      const Vec up = load(ups + i, count);
      store(y + row * width + i, gate / (1.f + exp(-gate)) * up, count);
    }
  });
}

}  // namespace

void silu_mul(const SiluMulArgs& args, ThreadPool& pool) {
  args.y.dtype == DType::kBF16 ? silu_mul_rows<BF16>(args, pool) : silu_mul_rows<float>(args, pool);
}

}  // namespace pbserve::kernels::cpu
