#include "kernels/ops/args_check.h"

#include "kernels/ops/tensor_check.h"

namespace pbserve::kernels {
namespace {

void expect_int32(Operand operand, std::initializer_list<int64_t> dims) {
  expect_dtype(operand, {DType::kI32});
  expect_shape(operand, dims);
}

void expect_f32(Operand operand, std::initializer_list<int64_t> dims) {
  expect_dtype(operand, {DType::kF32});
  expect_shape(operand, dims);
}

}  // namespace

void check_args(const RmsNormArgs& args) {
  const int64_t rows = size_at({"rms_norm: residual", args.residual}, 0);
  const int64_t width = size_at({"rms_norm: residual", args.residual}, 1);
  expect_f32({"rms_norm: residual", args.residual}, {rows, width});
  check(!args.x.empty() || !args.y.empty(), "rms_norm: neither x nor y");
  const DType dtype = args.y.empty() ? args.x.dtype : args.y.dtype;
  if (!args.y.empty()) {
    expect_f32({"rms_norm: weight", args.weight}, {width});
    expect_float({"rms_norm: y", args.y});
    expect_shape({"rms_norm: y", args.y}, {rows, width});
  }
  if (!args.x.empty()) {
    expect_float({"rms_norm: x", args.x});
    expect_dtype({"rms_norm: x", args.x}, {dtype});
    expect_shape({"rms_norm: x", args.x}, {rows, width});
  }
  check(args.eps >= 0, "rms_norm: eps is negative");
}

void check_args(const RopeAppendArgs& args) {
  const int64_t rows = size_at({"rope_append: qkv", args.qkv}, 0);
  const int64_t head_dim = size_at({"rope_append: qkv", args.qkv}, 2);
  const int64_t num_q_heads = size_at({"rope_append: q", args.q}, 1);
  const int64_t num_pages = size_at({"rope_append: k_pages", args.k_pages}, 0);
  const int64_t num_kv_heads = size_at({"rope_append: k_pages", args.k_pages}, 1);
  const DType dtype = args.qkv.dtype;
  expect_heads({"rope_append: qkv", args.qkv}, dtype,
               {rows, num_q_heads + 2 * num_kv_heads, head_dim});
  expect_heads({"rope_append: q", args.q}, dtype, {rows, num_q_heads, head_dim});
  for (const Operand pages : {Operand{"rope_append: k_pages", args.k_pages},
                              Operand{"rope_append: v_pages", args.v_pages}}) {
    expect_heads(pages, dtype, {num_pages, num_kv_heads, kPageSize, head_dim});
  }
  if (!args.q_norm.empty()) expect_f32({"rope_append: q_norm", args.q_norm}, {head_dim});
  if (!args.k_norm.empty()) expect_f32({"rope_append: k_norm", args.k_norm}, {head_dim});
  expect_f32({"rope_append: inv_freq", args.inv_freq}, {head_dim / 2});
  expect_int32({"rope_append: positions", args.positions}, {rows});
  expect_dtype({"rope_append: slots", args.slots}, {DType::kI64});
  expect_shape({"rope_append: slots", args.slots}, {rows});
}

void check_args(const SiluMulArgs& args) {
  const int64_t rows = size_at({"silu_mul: y", args.y}, 0);
  const int64_t width = size_at({"silu_mul: y", args.y}, 1);
  expect_float({"silu_mul: y", args.y});
  expect_shape({"silu_mul: y", args.y}, {rows, width});
  expect_dtype({"silu_mul: gate_up", args.gate_up}, {args.y.dtype});
  expect_shape({"silu_mul: gate_up", args.gate_up}, {rows, 2 * width});
}

void check_args(const EmbeddingArgs& args) {
  const int64_t rows = size_at({"embedding: y", args.y}, 0);
  const int64_t width = size_at({"embedding: y", args.y}, 1);
  const int64_t vocab_size = size_at({"embedding: table", args.table}, 0);
  expect_shape({"embedding: y", args.y}, {rows, width});
  expect_float({"embedding: table", args.table});
  expect_shape({"embedding: table", args.table}, {vocab_size, width});
  expect_dtype({"embedding: y", args.y}, {DType::kF32, args.table.dtype});
  if (args.index.empty()) {
    expect_int32({"embedding: ids", args.ids}, {rows});
  } else {
    expect_int32({"embedding: index", args.index}, {rows});
    expect_int32({"embedding: ids", args.ids}, {size_at({"embedding: ids", args.ids}, 0)});
  }
}

void check_args(const PackWeightArgs& args) {
  const LinearWeight& weight = args.weight;
  expect_float({"pack_weight: packed", weight.packed});
  expect_dtype({"pack_weight: rows", args.rows}, {weight.packed.dtype});
  const int64_t num_rows = size_at({"pack_weight: rows", args.rows}, 0);
  expect_shape({"pack_weight: rows", args.rows}, {num_rows, weight.num_in});
  check(args.row_begin >= 0 && args.row_begin + num_rows <= weight.num_out,
        "pack_weight: rows past the end of the matrix");
}

void check_args(const LinearArgs& args) {
  const int64_t rows = size_at({"linear: x", args.x}, 0);
  expect_float({"linear: x", args.x});
  expect_shape({"linear: x", args.x}, {rows, args.weight.num_in});
  expect_dtype({"linear: y", args.y}, {DType::kF32, args.x.dtype});
  expect_shape({"linear: y", args.y}, {rows, args.weight.num_out});
  expect_dtype({"linear: weight", args.weight.packed}, {args.x.dtype});
  expect_aligned({"linear: weight", args.weight.packed}, kVectorAlignment);
  check(!args.weight.packed.empty(), "linear: weight: no data");
  if (!args.bias.empty()) expect_f32({"linear: bias", args.bias}, {args.weight.num_out});
}

void check_args(const SwigluArgs& args) {
  const int64_t rows = size_at({"swiglu: y", args.y}, 0);
  const int64_t width = size_at({"swiglu: y", args.y}, 1);
  expect_float({"swiglu: y", args.y});
  expect_shape({"swiglu: y", args.y}, {rows, width});
  check_eq(args.gate_up.num_out, 2 * width, "swiglu: gate_up: rows of the matrix");
  expect_dtype({"swiglu: x", args.x}, {args.y.dtype});
  expect_shape({"swiglu: x", args.x}, {rows, args.gate_up.num_in});
  expect_dtype({"swiglu: gate_up", args.gate_up.packed}, {args.y.dtype});
  expect_aligned({"swiglu: gate_up", args.gate_up.packed}, kVectorAlignment);
  check(!args.gate_up.packed.empty(), "swiglu: gate_up: no data");
  expect_dtype({"swiglu: scratch", args.scratch}, {args.y.dtype});
  expect_shape({"swiglu: scratch", args.scratch}, {rows, 2 * width});
}

void check_args(const SampleArgs& args) {
  const int64_t rows = size_at({"sample: logits", args.logits}, 0);
  const int64_t vocab_size = size_at({"sample: logits", args.logits}, 1);
  check(vocab_size > 0, "sample: logits: empty vocabulary");
  expect_f32({"sample: logits", args.logits}, {rows, vocab_size});
  expect_int32({"sample: token", args.token}, {size_at({"sample: token", args.token}, 0)});
  expect_int32({"sample: index", args.index}, {rows});
  expect_f32({"sample: temperature", args.temperature}, {rows});
  expect_int32({"sample: top_k", args.top_k}, {rows});
  expect_f32({"sample: top_p", args.top_p}, {rows});
  expect_f32({"sample: min_p", args.min_p}, {rows});
  expect_dtype({"sample: seed", args.seed}, {DType::kU64});
  expect_shape({"sample: seed", args.seed}, {rows});
  expect_int32({"sample: position", args.position}, {rows});
  expect_int32({"sample: banned", args.banned}, {rows, kMaxBannedIds});
}

}  // namespace pbserve::kernels
