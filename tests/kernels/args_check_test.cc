// A broken contract dies naming the operation and the operand; a kept one passes.
#include "kernels/ops/args_check.h"

#include <gtest/gtest.h>

#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using namespace kernels;

// Memory for tensors whose contents do not matter.
class ArgsCheckDeathTest : public ::testing::Test {
 protected:
  Tensor tensor(DType dtype, std::initializer_list<int64_t> dims) {
    owned_.push_back(std::make_unique<HostTensor>(dtype, dims));
    return owned_.back()->view();
  }
  Tensor f32(std::initializer_list<int64_t> dims) { return tensor(DType::kF32, dims); }
  Tensor bf16(std::initializer_list<int64_t> dims) { return tensor(DType::kBF16, dims); }
  Tensor i32(std::initializer_list<int64_t> dims) { return tensor(DType::kI32, dims); }

  RmsNormArgs norm() {
    return {.y = bf16({3, 8}),
            .x = bf16({3, 8}),
            .weight = f32({8}),
            .residual = f32({3, 8}),
            .eps = 1e-6f};
  }
  RopeAppendArgs rope() {
    return {.q = bf16({3, 4, 64}),
            .k_pages = bf16({2, 1, kPageSize, 64}),
            .v_pages = bf16({2, 1, kPageSize, 64}),
            .qkv = bf16({3, 6, 64}),
            .q_norm = {},
            .k_norm = {},
            .inv_freq = f32({32}),
            .positions = i32({3}),
            .slots = tensor(DType::kI64, {3}),
            .rope_scale = 1,
            .norm_eps = 0};
  }
  LinearArgs linear_args() {
    return {.y = f32({3, 5}),
            .x = bf16({3, 7}),
            .weight = {.packed = bf16({64 * 7}), .num_out = 5, .num_in = 7},
            .bias = {}};
  }
  PrefillAttentionArgs prefill() {
    return {.out = bf16({5, 4, 64}),
            .q = bf16({5, 4, 64}),
            .k_pages = bf16({2, 2, kPageSize, 64}),
            .v_pages = bf16({2, 2, kPageSize, 64}),
            .block_tables = i32({2, 3}),
            .segments = segments_,
            .scale = 1};
  }
  KvPages pages(int64_t num_pages) {
    return {.k = bf16({num_pages, 2, kPageSize, 64}),
            .v = bf16({num_pages, 2, kPageSize, 64}),
            .k_mean = bf16({num_pages, 2, 64}),
            .k_var = bf16({num_pages, 2, 64})};
  }
  PbsInput pbs_input() {
    return {.plan = {.own = pages(4),
                     .mask = tensor(DType::kU32, {4, 4, 1}),
                     .scratch = tensor(DType::kU8, {16})},
            .pages = pages(9),
            .block_table = i32({7}),
            .q = bf16({300, 4, 64}),
            .job = {.begin = 512, .end = 812, .span_len = 512, .prompt_len = 812},
            .params = {},
            .scale = 1};
  }

  std::vector<std::unique_ptr<HostTensor>> owned_;
  std::vector<PrefillSegment> segments_ = {
      {.row_begin = 0, .num_rows = 5, .position = 10, .sequence = 1}};
};

// Dies with `message` once `breakage` has been applied to args that pass.
template <class Args, class Breakage>
void expect_death(const Args& good, const Breakage& breakage, const char* message) {
  check_args(good);
  Args bad = good;
  breakage(bad);
  EXPECT_DEATH(check_args(bad), message) << "expected: " << message;
}

TEST_F(ArgsCheckDeathTest, RmsNorm) {
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(norm(), breakage, message);
  };
  dies([&](auto& a) { a.weight = f32({9}); }, "rms_norm: weight: shape \\[9\\], expected \\[8\\]");
  dies([&](auto& a) { a.y = bf16({2, 8}); }, "rms_norm: y: shape \\[2, 8\\], expected \\[3, 8\\]");
  dies([&](auto& a) { a.x = f32({3, 8}); }, "rms_norm: x: dtype float32, expected bfloat16");
  dies([&](auto& a) { a.residual = bf16({3, 8}); }, "rms_norm: residual: dtype bfloat16");
  dies([&](auto& a) { a.y.stride[0] = 16; }, "rms_norm: y: not contiguous");
  dies([&](auto& a) { a.weight.data = nullptr; }, "rms_norm: weight: no data");
  dies([&](auto& a) { a.y.data = static_cast<std::byte*>(a.y.data) + 1; }, "rms_norm: y: not on a");
  dies([&](auto& a) { a.x.data = a.y.data = nullptr; }, "rms_norm: neither x nor y");
  dies([&](auto& a) { a.residual = f32({8}); }, "rms_norm: residual: rank too small");
  dies([&](auto& a) { a.eps = -1; }, "eps is negative");
}

TEST_F(ArgsCheckDeathTest, RopeAppend) {
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(rope(), breakage, message);
  };
  dies([&](auto& a) { a.qkv = bf16({3, 5, 64}); }, "rope_append: qkv: shape");
  dies([&](auto& a) { a.v_pages = bf16({3, 1, kPageSize, 64}); }, "rope_append: v_pages: shape");
  dies([&](auto& a) { a.k_pages = f32({2, 1, kPageSize, 64}); }, "rope_append: k_pages: dtype");
  dies([&](auto& a) { a.inv_freq = f32({64}); }, "rope_append: inv_freq: shape");
  dies([&](auto& a) { a.k_norm = f32({32}); }, "rope_append: k_norm: shape");
  dies([&](auto& a) { a.slots = i32({3}); }, "rope_append: slots: dtype int32, expected int64");
  dies([&](auto& a) { a.positions = i32({4}); }, "rope_append: positions: shape");
  dies([&](auto& a) { a.qkv.data = static_cast<std::byte*>(a.qkv.data) + 2; },
       "rope_append: qkv: not on a boundary of 16 bytes");
}

TEST_F(ArgsCheckDeathTest, SiluMulAndEmbedding) {
  expect_death(
      SiluMulArgs{.y = f32({2, 3}), .gate_up = f32({2, 6})},
      [&](auto& a) {
        a.gate_up = f32({2, 5});
      },
      "silu_mul: gate_up: shape");
  const EmbeddingArgs good{.y = f32({2, 3}), .ids = i32({2}), .index = {}, .table = bf16({9, 3})};
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(good, breakage, message);
  };
  dies([&](auto& a) { a.ids = i32({3}); }, "embedding: ids: shape");
  dies([&](auto& a) { a.index = i32({1}); }, "embedding: index: shape");
  dies([&](auto& a) { a.table = i32({9, 3}); }, "embedding: table: dtype int32");
  dies([&](auto& a) { a.table = f32({9, 3}), a.y = bf16({2, 3}); }, "embedding: y: dtype");
  EmbeddingArgs indexed = good;
  indexed.ids = i32({100});
  indexed.index = i32({2});
  check_args(indexed);
}

TEST_F(ArgsCheckDeathTest, LinearAndItsWeight) {
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(linear_args(), breakage, message);
  };
  dies([&](auto& a) { a.x = bf16({3, 8}); }, "linear: x: shape");
  dies([&](auto& a) { a.y = f32({3, 6}); }, "linear: y: shape");
  dies([&](auto& a) { a.weight.packed = f32({448}); }, "linear: weight: dtype");
  dies([&](auto& a) { a.bias = bf16({5}); }, "linear: bias: dtype");
  const PackWeightArgs pack{.weight = linear_args().weight, .rows = bf16({2, 7}), .row_begin = 3};
  expect_death(
      pack, [](auto& a) { a.row_begin = 4; }, "past the end of the matrix");
  expect_death(
      pack,
      [&](auto& a) {
        a.rows = bf16({2, 6});
      },
      "pack_weight: rows: shape");

  const auto stream = Stream::create({}, 1);
  LinearArgs wrong_size = linear_args();
  wrong_size.weight.packed = bf16({63 * 7});
  EXPECT_DEATH(linear(wrong_size, *stream), "elements of the packed form: 441 vs 448");
}

TEST_F(ArgsCheckDeathTest, Swiglu) {
  const SwigluArgs good{.y = bf16({3, 5}),
                        .x = bf16({3, 7}),
                        .gate_up = {.packed = bf16({64 * 7}), .num_out = 10, .num_in = 7},
                        .scratch = bf16({3, 10})};
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(good, breakage, message);
  };
  dies([&](auto& a) { a.x = bf16({3, 8}); }, "swiglu: x: shape");
  dies([&](auto& a) { a.x = f32({3, 7}); }, "swiglu: x: dtype");
  dies([&](auto& a) { a.y = bf16({3, 6}); }, "swiglu: gate_up: rows of the matrix");
  dies([&](auto& a) { a.scratch = bf16({3, 5}); }, "swiglu: scratch: shape");
  dies([&](auto& a) { a.gate_up.packed = f32({448}); }, "swiglu: gate_up: dtype");
}

TEST_F(ArgsCheckDeathTest, Sample) {
  const SampleArgs good{.token = i32({9}),
                        .index = i32({2}),
                        .logits = f32({2, 50}),
                        .temperature = f32({2}),
                        .top_k = i32({2}),
                        .top_p = f32({2}),
                        .min_p = f32({2}),
                        .seed = tensor(DType::kU64, {2}),
                        .position = i32({2}),
                        .banned = i32({2, kMaxBannedIds})};
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(good, breakage, message);
  };
  dies([&](auto& a) { a.logits = bf16({2, 50}); }, "sample: logits: dtype");
  dies([&](auto& a) { a.index = i32({3}); }, "sample: index: shape");
  dies([&](auto& a) { a.banned = i32({2, 3}); }, "sample: banned: shape");
  dies([&](auto& a) { a.seed = tensor(DType::kI64, {2}); }, "sample: seed: dtype");
  dies([&](auto& a) { a.top_k = f32({2}); }, "sample: top_k: dtype");
}

TEST_F(ArgsCheckDeathTest, PrefillAttention) {
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(prefill(), breakage, message);
  };
  dies([&](auto& a) { a.out = bf16({4, 4, 64}); }, "prefill_attention: out: shape");
  dies([&](auto& a) { a.k_pages = bf16({2, 2, 64, 64}); }, "k_pages: shape");
  dies([&](auto& a) { a.q = bf16({5, 3, 64}); }, "not a multiple of key heads");
  const auto segment_dies = [&](PrefillSegment segment, const char* message) {
    const std::vector<PrefillSegment> segments = {segment};
    dies([&](auto& a) { a.segments = segments; }, message);
  };
  segment_dies({.row_begin = 1, .num_rows = 5, .position = 0, .sequence = 0}, "outside q");
  segment_dies({.row_begin = 0, .num_rows = 0, .position = 0, .sequence = 0}, "empty segment");
  segment_dies({.row_begin = 0, .num_rows = 5, .position = 0, .sequence = 2},
               "outside block_tables");
  segment_dies({.row_begin = 0, .num_rows = 5, .position = 380, .sequence = 0},
               "past the end of its block table");
}

TEST_F(ArgsCheckDeathTest, DecodeAttention) {
  const DecodeAttentionArgs good{.out = f32({2, 4, 16}),
                                 .q = f32({2, 4, 16}),
                                 .k_pages = f32({3, 1, kPageSize, 16}),
                                 .v_pages = f32({3, 1, kPageSize, 16}),
                                 .block_tables = i32({2, 3}),
                                 .context_lens = i32({2}),
                                 .scratch = tensor(DType::kU8, {16}),
                                 .scale = 1};
  expect_death(
      good, [&](auto& a) { a.context_lens = i32({3}); }, "context_lens: shape");
  expect_death(
      good,
      [&](auto& a) {
        a.block_tables = i32({1, 3});
      },
      "block_tables: shape");
  expect_death(
      good,
      [&](auto& a) {
        a.v_pages = f32({3, 2, kPageSize, 16});
      },
      "v_pages: shape");
  expect_death(
      good, [&](auto& a) { a.scratch = f32({4}); }, "scratch: dtype");
}

TEST_F(ArgsCheckDeathTest, PbsInput) {
  const auto dies = [&](auto breakage, const char* message) {
    expect_death(
        PbsOrderArgs{pbs_input()}, [&](PbsOrderArgs& a) { breakage(a.input); }, message);
  };
  dies([](auto& i) { i.job.begin = 500; }, "does not start on a segment");
  dies([](auto& i) { i.job.end = i.job.prompt_len = 813; }, "rows of q and of the job");
  dies([](auto& i) { i.job.prompt_len = 811; }, "job past the prompt");
  dies([](auto& i) { i.job.prompt_len = 2000; }, "job ends inside a span");
  dies([](auto& i) { i.job.span_len = 300; }, "span length is not a multiple of the segment");
  dies([](auto& i) { i.params.segment = 512; }, "segment is not 128 or 256");
  dies([](auto& i) { i.params.scorer = PbsScorer::kQuery; }, "go together");
  dies([](auto& i) { i.params.selector = PbsSelector::kTopP; }, "go together");
  dies([](auto& i) { i.params.threshold = 0; }, "threshold is not positive");
  dies([](auto& i) { i.params.sink = -1; }, "sink, local or dense_tail is negative");
  dies(
      [](auto& i) {
        i.params.scorer = PbsScorer::kAntidiagonal;
        i.params.selector = PbsSelector::kTopP;
        i.params.stride = 4;
      },
      "stride is not 8 or 16");
  dies([&](auto& i) { i.block_table = i32({6}); }, "shorter than the context");
  dies([&](auto& i) { i.plan.own = pages(2); }, "plan.own shorter than the job");
  dies([&](auto& i) { i.plan.own.v = f32({4, 2, kPageSize, 64}); }, "v_pages: dtype");
  dies([&](auto& i) { i.plan.mask = tensor(DType::kU32, {4, 2, 1}); }, "job longer than the plan");
  dies([&](auto& i) { i.plan.mask = tensor(DType::kU32, {2, 4, 1}); }, "heads of plan.mask");
  dies([&](auto& i) { i.pages.k_mean = f32({9, 2, 64}); }, "k_mean: dtype");
  dies([&](auto& i) { i.pages.k_mean = bf16({8, 2, 64}); }, "k_mean: shape");
  dies([&](auto& i) { i.pages.k_var = f32({9, 2, 64}); }, "k_var: dtype");
  dies([&](auto& i) { i.pages.k_var = bf16({9, 1, 64}); }, "k_var: shape");
}

TEST_F(ArgsCheckDeathTest, PbsStepsOverBlocks) {
  const PbsSelectArgs select{.input = pbs_input(),
                             .block_begin = 1,
                             .block_end = 3,
                             .num_selected = tensor(DType::kI64, {1})};
  expect_death(
      select, [&](auto& a) { a.num_selected = i32({1}); }, "num_selected: dtype");
  expect_death(
      select, [](auto& a) { a.block_begin = -1; }, "query blocks outside the job");
  const PbsAuditArgs audit{.input = pbs_input(),
                           .block_begin = 0,
                           .block_end = 3,
                           .period = 64,
                           .coverage = tensor(DType::kI64, {4})};
  expect_death(
      audit, [](auto& a) { a.period = 0; }, "period below 1");
  expect_death(
      audit, [&](auto& a) { a.coverage = tensor(DType::kI64, {2}); }, "coverage: shape");
  const PbsPrefillArgs prefill{
      .input = pbs_input(), .block_begin = 0, .block_end = 3, .out = bf16({300, 4, 64})};
  expect_death(
      prefill, [](auto& a) { a.block_end = 4; }, "query blocks outside the job");
  expect_death(
      prefill,
      [&](auto& a) {
        a.out = bf16({299, 4, 64});
      },
      "out: shape");
}

TEST_F(ArgsCheckDeathTest, PbsPool) {
  const PbsPoolArgs pool{.pages = pages(9), .block_table = i32({7}), .num_pages = 7};
  expect_death(
      pool, [](auto& a) { a.num_pages = 8; }, "shorter than the context");
  expect_death(
      pool, [&](auto& a) { a.pages.k_mean = {}; }, "k_mean");
  expect_death(
      pool, [&](auto& a) { a.pages.k_var = {}; }, "k_var");
}

TEST_F(ArgsCheckDeathTest, PbsPlanOfItsShapePasses) {
  Workspace measuring;
  const PbsPlanShape shape{.num_q_heads = 4,
                           .num_kv_heads = 2,
                           .head_dim = 64,
                           .context_len_max = 5000,
                           .job_rows_max = 300,
                           .dtype = DType::kBF16};
  const PbsPlan taken = take_pbs_plan(shape, {}, measuring);
  EXPECT_EQ(taken.own.k.dim(0), 3);  // whole pages
  EXPECT_EQ(taken.mask.dim(1), 3);
  EXPECT_EQ(taken.mask.dim(2), 2);  // 40 key blocks
  expect_death(
      shape, [](auto& s) { s.head_dim = 24; }, "head size is not a multiple of 16");
  expect_death(
      shape, [](auto& s) { s.job_rows_max = 5001; }, "job longer than the context");
  expect_death(
      shape, [](auto& s) { s.num_q_heads = 3; }, "not a multiple of key heads");
}

}  // namespace
}  // namespace pbserve::test
