// The matrix products of a layer, as bench_ops times them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/stream.h"
#include "tests/bench/op_timer.h"

namespace pbserve::kernels {

struct ProductShapes {
  int64_t q_size;   // Hq D
  int64_t kv_size;  // Hkv D
  int64_t hidden;
  int64_t ffn;
  std::vector<int32_t> rows;
};

// Prints a line a product and number of rows: of each by itself, and of SwiGLU's two products, with
// what joins them, in one step and in two.
void time_products(const ProductShapes& shapes, const Stream& stream, OpTimer& timer,
                   const OpReport& report);
void time_swiglu(const ProductShapes& shapes, const Stream& stream, OpTimer& timer,
                 const OpReport& report);

}  // namespace pbserve::kernels
