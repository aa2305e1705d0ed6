// Attention of one layer of the demo model's shape: dense prefill and decode against the steps of
// PBS. One JSON line each. Usage: bench_attention [threads] [tokens...]
//
// Random queries and keys have no structure that a selector could use, so the mask is drawn: each
// row takes `kDensity` of its candidates. The time of pbs_select is that of a real selection.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <random>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/workspace.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels {
namespace {

constexpr int64_t kNumQHeads = 6, kNumKvHeads = 2, kHeadDim = 64;
constexpr int32_t kSpan = 8192;
constexpr double kDensity = 0.2;
constexpr int kRuns = 3;  // the best counts; a dense pass over a long context runs once

class Memory {
 public:
  Tensor take(DType dtype, std::initializer_list<int64_t> dims) {
    Tensor tensor(nullptr, dtype, dims);
    tensor.data = bytes(static_cast<size_t>(tensor.numel()) * size_of(dtype));
    return tensor;
  }
  std::byte* bytes(size_t num_bytes) {
    auto buffer = DeviceBuffer::create(Device{}, num_bytes);
    check(buffer.ok(), "no memory");
    buffers_.push_back(*std::move(buffer));
    return buffers_.back().data();
  }

 private:
  std::vector<DeviceBuffer> buffers_;
};

void fill_normal(const Tensor& tensor, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.as<BF16>()[i] = from_f32<BF16>(normal(rng));
}

// Elapsed time, and the processor time of all threads: on a shared machine the second is steadier.
struct Seconds {
  double wall = 0;
  double cpu = 0;

  Seconds operator+(const Seconds& other) const { return {wall + other.wall, cpu + other.cpu}; }
};

Seconds seconds(const std::function<void()>& work) {
  const auto wall = std::chrono::steady_clock::now();
  const std::clock_t cpu = std::clock();
  work();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - wall).count(),
          static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC};
}

Seconds best_of(int runs, const std::function<void()>& work) {
  Seconds best = seconds(work);
  for (int run = 1; run < runs; ++run) {
    const Seconds time = seconds(work);
    best = {std::min(best.wall, time.wall), std::min(best.cpu, time.cpu)};
  }
  return best;
}

struct Bench {
  Bench(int32_t tokens, int num_threads)
      : len(tokens), stream(*Stream::create(Device{}, num_threads)), threads(num_threads) {
    const int64_t num_pages = ceil_div<int64_t>(len, kPageSize);
    q = memory.take(DType::kBF16, {len, kNumQHeads, kHeadDim});
    out = memory.take(DType::kBF16, {len, kNumQHeads, kHeadDim});
    k_pages = memory.take(DType::kBF16, {num_pages, kNumKvHeads, kPageSize, kHeadDim});
    v_pages = memory.take(DType::kBF16, {num_pages, kNumKvHeads, kPageSize, kHeadDim});
    tables = memory.take(DType::kI32, {1, num_pages});
    num_selected = memory.take(DType::kI64, {1});
    std::mt19937 rng(1);
    for (const Tensor& tensor : {q, k_pages, v_pages}) fill_normal(tensor, rng);
    for (int32_t i = 0; i < num_pages; ++i) tables.as<int32_t>()[i] = i;
    const PbsPlanShape shape{.num_q_heads = kNumQHeads,
                             .num_kv_heads = kNumKvHeads,
                             .head_dim = kHeadDim,
                             .context_len_max = len,
                             .span_len_max = std::min(len, kSpan),
                             .dtype = DType::kBF16};
    Workspace measure;
    take_pbs_plan(shape, Device{}, measure);
    Workspace workspace(memory.bytes(measure.used_bytes()), measure.used_bytes());
    plan = take_pbs_plan(shape, Device{}, workspace);
  }

  void dense();
  void decode();
  Seconds order(PbsSpan span);
  Seconds select(PbsSpan span, PbsScorer scorer);
  void draw_mask(PbsSpan span, std::mt19937& rng);
  Seconds attend(PbsSpan span);
  void pbs();

  int32_t len;
  Stream stream;
  int threads;
  Memory memory;
  Tensor q, out, k_pages, v_pages, tables, num_selected;
  PbsPlan plan;
  float scale = 1.f / std::sqrt(static_cast<float>(kHeadDim));
};

void Bench::dense() {
  const PrefillSegment segment{.row_begin = 0, .num_rows = len, .position = 0, .sequence = 0};
  const Seconds best = best_of(len > 2 * kSpan ? 1 : kRuns, [&] {
    prefill_attention({.out = out,
                       .q = q,
                       .k_pages = k_pages,
                       .v_pages = v_pages,
                       .block_tables = tables,
                       .segments = {&segment, 1},
                       .scale = scale},
                      stream);
  });
  const double gflop = 2e-9 * len * (len + 1.) * kNumQHeads * kHeadDim;  // causal pairs
  std::printf(
      "{\"op\":\"prefill_attention\",\"tokens\":%d,\"threads\":%d,\"wall_s\":%.4f,"
      "\"cpu_s\":%.4f,\"gflops\":%.1f,\"gflops_per_cpu\":%.1f}\n",
      len, threads, best.wall, best.cpu, gflop / best.wall, gflop / best.cpu);
}

void Bench::decode() {
  const Tensor lens = memory.take(DType::kI32, {1});
  lens.as<int32_t>()[0] = len;
  const Seconds best = best_of(10 * kRuns, [&] {
    decode_attention({.out = out.rows(0, 1),
                      .q = q.rows(len - 1, len),
                      .k_pages = k_pages,
                      .v_pages = v_pages,
                      .block_tables = tables,
                      .context_lens = lens,
                      .scale = scale},
                     stream);
  });
  const double gbytes = 2e-9 * len * kNumKvHeads * kHeadDim * sizeof(BF16);
  std::printf(
      "{\"op\":\"decode_attention\",\"tokens\":%d,\"threads\":%d,\"wall_s\":%.6f,"
      "\"cpu_s\":%.6f,\"gbytes_per_s\":%.2f}\n",
      len, threads, best.wall, best.cpu, gbytes / best.wall);
}

Seconds Bench::order(PbsSpan span) {
  return seconds([&] {
    pbs_order({.plan = plan,
               .q = q.rows(span.begin, span.end),
               .k_pages = k_pages,
               .v_pages = v_pages,
               .block_table = tables.at(0),
               .span = span,
               .params = {},
               .scale = scale},
              stream);
  });
}

Seconds Bench::select(PbsSpan span, PbsScorer scorer) {
  return seconds([&] {
    pbs_select({.plan = plan,
                .q = q.rows(span.begin, span.end),
                .span = span,
                .block_begin = 0,
                .block_end = ceil_div(span.num_rows(), kPbsBlock),
                .num_selected = num_selected,
                .params = {.scorer = scorer},
                .scale = scale},
               stream);
  });
}

void Bench::draw_mask(PbsSpan span, std::mt19937& rng) {
  std::bernoulli_distribution taken(kDensity);
  const Tensor& mask = plan.mask;
  const int64_t num_blocks = span.end / kPbsBlock;
  for (int64_t h = 0; h < kNumQHeads; ++h) {
    for (int64_t i = 0; i < ceil_div(span.num_rows(), kPbsBlock); ++i) {
      uint32_t* words = mask.as<uint32_t>() + h * mask.stride[0] + i * mask.stride[1];
      std::fill_n(words, mask.dim(2), 0u);
      for (int64_t j = 0; j < num_blocks; ++j) {
        if (taken(rng)) words[j / 32] |= 1u << (j % 32);
      }
    }
  }
}

Seconds Bench::attend(PbsSpan span) {
  return seconds([&] {
    pbs_prefill({.out = out.rows(span.begin, span.end),
                 .plan = plan,
                 .q = q.rows(span.begin, span.end),
                 .k_pages = k_pages,
                 .v_pages = v_pages,
                 .block_table = tables.at(0),
                 .span = span,
                 .block_begin = 0,
                 .block_end = ceil_div(span.num_rows(), kPbsBlock),
                 .segment = PbsParams{}.segment,
                 .scale = scale},
                stream);
  });
}

void Bench::pbs() {
  std::mt19937 rng(2);
  Seconds ordering, mean, antidiagonal, prefill;
  for (PbsSpan span{0, kSpan}; span.begin < len; span = {span.end, span.end + kSpan}) {
    span.end = std::min(span.end, len);
    ordering = ordering + order(span);
    mean = mean + select(span, PbsScorer::kMean);
    antidiagonal = antidiagonal + select(span, PbsScorer::kAntidiagonal);
    draw_mask(span, rng);
    prefill = prefill + attend(span);
  }
  const auto print = [&](const char* stage, Seconds time) {
    std::printf(
        "{\"op\":\"%s\",\"tokens\":%d,\"threads\":%d,\"wall_s\":%.4f,\"cpu_s\":%.4f,"
        "\"forced_density\":%.2f}\n",
        stage, len, threads, time.wall, time.cpu, kDensity);
  };
  print("pbs_order", ordering);
  print("pbs_select_mean", mean);
  print("pbs_select_antidiagonal8", antidiagonal);
  print("pbs_prefill", prefill);
  print("pbs_mean_total", ordering + mean + prefill);
  print("pbs_antidiagonal8_total", ordering + antidiagonal + prefill);
}

}  // namespace
}  // namespace pbserve::kernels

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  std::vector<int32_t> lengths = {8192, 32768};
  if (argc > 2) lengths.clear();
  for (int i = 2; i < argc; ++i) lengths.push_back(std::atoi(argv[i]));
  for (const int32_t len : lengths) {
    pbserve::kernels::Bench bench(len, threads);
    bench.dense();
    bench.decode();
    bench.pbs();
  }
  return 0;
}
