#include "kernels/ops/swiglu.h"

#include "kernels/ops/activation.h"

namespace pbserve::kernels::cpu {

void swiglu(const SwigluArgs& args, ThreadPool& pool) {
  linear({.y = args.scratch, .x = args.x, .weight = args.gate_up, .bias = {}}, pool);
  silu_mul({.y = args.y, .gate_up = args.scratch}, pool);
}

}  // namespace pbserve::kernels::cpu
