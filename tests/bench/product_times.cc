#include "tests/bench/product_times.h"

#include "kernels/ops/activation.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/swiglu.h"
#include "tests/bench/op_inputs.h"

namespace pbserve::kernels {
namespace {

LinearWeight take_weight(int64_t num_out, int64_t num_in, const Stream& stream, OpInputs& inputs) {
  const int64_t numel = packed_weight_numel(stream.device(), num_out, num_in);
  return {inputs.take_noise({numel}), num_out, num_in};
}

double tflops(int32_t rows, const LinearWeight& weight, const OpTime& time) {
  return rounded(2.0 * rows * static_cast<double>(weight.num_out * weight.num_in) / time.ms * 1e-9,
                 1);
}

}  // namespace

void time_products(const ProductShapes& shapes, const Stream& stream, OpTimer& timer,
                   const OpReport& report) {
  struct Product {
    const char* name;
    int64_t num_out;
    int64_t num_in;
  };
  for (const Product& product : {Product{"qkv", shapes.q_size + 2 * shapes.kv_size, shapes.hidden},
                                 {"out", shapes.hidden, shapes.q_size},
                                 {"gate_up", 2 * shapes.ffn, shapes.hidden},
                                 {"down", shapes.hidden, shapes.ffn}}) {
    OpInputs inputs(stream);
    const LinearWeight weight = take_weight(product.num_out, product.num_in, stream, inputs);
    for (const int32_t rows : shapes.rows) {
      const Tensor x = inputs.take_noise({rows, product.num_in});
      const Tensor y = inputs.take(DType::kBF16, {rows, product.num_out});
      const OpTime time =
          timer.time([&] { linear({.y = y, .x = x, .weight = weight, .bias = {}}, stream); });
      const double bytes = 2.0 * static_cast<double>(product.num_out * product.num_in);
      report.print({{"op", "linear"}, {"name", product.name}, {"rows", rows}}, time,
                   {{"tflops", tflops(rows, weight, time)},
                    {"weight_gbytes_per_s", rounded(bytes / time.ms * 1e-6, 0)}});
      inputs.drop(2);
    }
  }
}

void time_swiglu(const ProductShapes& shapes, const Stream& stream, OpTimer& timer,
                 const OpReport& report) {
  OpInputs inputs(stream);
  const LinearWeight weight = take_weight(2 * shapes.ffn, shapes.hidden, stream, inputs);
  for (const int32_t rows : shapes.rows) {
    const Tensor x = inputs.take_noise({rows, shapes.hidden});
    const Tensor scratch = inputs.take(DType::kBF16, {rows, 2 * shapes.ffn});
    const Tensor y = inputs.take(DType::kBF16, {rows, shapes.ffn});
    const auto print = [&](const char* op, const OpTime& time) {
      report.print({{"op", op}, {"rows", rows}}, time, {{"tflops", tflops(rows, weight, time)}});
    };
    print("swiglu", timer.time([&] {
      swiglu({.y = y, .x = x, .gate_up = weight, .scratch = scratch}, stream);
    }));
    print("linear, silu_mul", timer.time([&] {
      linear({.y = scratch, .x = x, .weight = weight, .bias = {}}, stream);
      silu_mul({.y = y, .gate_up = scratch}, stream);
    }));
    inputs.drop(3);
  }
}

}  // namespace pbserve::kernels
