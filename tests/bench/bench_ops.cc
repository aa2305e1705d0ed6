// Times of single operations on either backend, one JSON line each: dense and sparse prefill
// attention, the stages of PBS, decode attention, matrix products. The defaults are a layer of
// Llama-3.1-8B.
//
// Inputs are random, and random queries and keys have no structure that a selector could use: the
// mask of the sparse prefill is drawn with `forced_density`, said in its line. The stages before it
// do all their work on the random inputs.
//
// The L2 cache is flushed before every run, outside of the timed interval: zeros are written to
// 256 MiB on a GPU, to 64 MiB on the CPU (by one thread: what other cores keep in caches of their
// own stays). What then stands in the L2 are zeros to be written back, at most its 50 MB: a part of
// the time of operations that read little more, such as decode of one short sequence. "ms" is the
// median of the runs; a stage of PBS is the sum over the prompt's jobs.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/check.h"
#include "kernels/core/workspace.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/pbs.h"
#include "kernels/ops/pbs_force.h"
#include "tests/bench/op_inputs.h"
#include "tests/bench/op_timer.h"
#include "tests/bench/product_times.h"

namespace pbserve::kernels {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> ops = {"prefill", "pbs", "decode", "products", "swiglu"};
  std::string commit = "unknown";
  std::string device = "auto";
  int threads = 0;
  int64_t num_q_heads = 32;
  int64_t num_kv_heads = 8;
  int64_t head_dim = 128;
  int64_t hidden = 4096;
  int64_t ffn = 14336;
  std::vector<int32_t> tokens = {8192, 32768};
  std::vector<double> densities = {1.0, 0.2, 0.1};
  std::vector<int32_t> rows = {1, 64, 1024, 8192};
  std::vector<int32_t> batches = {1, 8, 64};
  int32_t job = 8192;
  int32_t span = 1024;
  int runs = 20;

  bool has(const char* op) const { return std::ranges::find(ops, op) != ops.end(); }
};

PbsParams top_p(PbsScorer scorer, float threshold, int32_t stride = 8) {
  return {
      .scorer = scorer, .stride = stride, .selector = PbsSelector::kTopP, .threshold = threshold};
}

class Bench {
 public:
  Bench(const Options& options, Stream stream, OpReport report)
      : options_(options), stream_(std::move(stream)), report_(std::move(report)) {}

  void run();

 private:
  // The attention of one layer over a whole prompt.
  struct Layer {
    Tensor q;      // [T, Hq, D]
    Tensor out;    // [T, Hq, D]
    Tensor k;      // [num_pages, Hkv, P, D]
    Tensor v;      // [num_pages, Hkv, P, D]
    Tensor table;  // [1, num_pages] int32
    PbsPlan plan = {};
    Tensor k_mean = {};        // [num_pages, Hkv, D]
    Tensor k_var = {};         // [num_pages, Hkv, D]
    Tensor num_selected = {};  // [1] int64
    Tensor coverage = {};      // [Hq] int64
  };

  void decode(int32_t len);
  Layer take_layer(int32_t len);
  void prefill(const Layer& layer);
  void pbs_stages(Layer layer);
  PbsInput input(const Layer& layer, const PbsJob& job, const PbsParams& params) const;
  OpTime order_time(const Layer& layer, const PbsJob& job);
  OpTime select_time(const Layer& layer, const PbsJob& job, const PbsParams& params);
  OpTime audit_time(const Layer& layer, const PbsJob& job);
  OpTime attend_time(const Layer& layer, const PbsJob& job);
  int64_t force_mask(const Layer& layer, const PbsJob& job, double density);
  Tensor take_pages(int64_t num_pages) {
    return inputs_.take_noise({num_pages, options_.num_kv_heads, kPageSize, options_.head_dim});
  }
  PbsPlan take_plan(int32_t len, int32_t job_rows);
  float scale() const { return 1.f / std::sqrt(static_cast<float>(options_.head_dim)); }

  const Options& options_;
  Stream stream_;
  OpReport report_;
  OpTimer timer_{stream_, options_.runs};
  OpInputs inputs_{stream_};
};

PbsPlan Bench::take_plan(int32_t len, int32_t job_rows) {
  const PbsPlanShape shape{.num_q_heads = options_.num_q_heads,
                           .num_kv_heads = options_.num_kv_heads,
                           .head_dim = options_.head_dim,
                           .context_len_max = len,
                           .job_rows_max = job_rows,
                           .dtype = DType::kBF16};
  Workspace measure;
  take_pbs_plan(shape, stream_.device(), measure);
  const Tensor bytes = inputs_.take(DType::kU8, {static_cast<int64_t>(measure.used_bytes())});
  Workspace workspace(static_cast<std::byte*>(bytes.data), measure.used_bytes());
  return take_pbs_plan(shape, stream_.device(), workspace);
}

Bench::Layer Bench::take_layer(int32_t len) {
  const int64_t num_pages = ceil_div<int64_t>(len, kPageSize);
  return {.q = inputs_.take_noise({len, options_.num_q_heads, options_.head_dim}),
          .out = inputs_.take(DType::kBF16, {len, options_.num_q_heads, options_.head_dim}),
          .k = take_pages(num_pages),
          .v = take_pages(num_pages),
          .table = inputs_.take_page_table(1, num_pages)};
}

void Bench::prefill(const Layer& layer) {
  const auto len = static_cast<int32_t>(layer.q.dim(0));
  const PrefillSegment segment{.row_begin = 0, .num_rows = len, .position = 0, .sequence = 0};
  const OpTime time = timer_.time([&] {
    prefill_attention({.out = layer.out,
                       .q = layer.q,
                       .k_pages = layer.k,
                       .v_pages = layer.v,
                       .block_tables = layer.table,
                       .segments = {&segment, 1},
                       .scale = scale()},
                      stream_);
  });
  const double pairs = 0.5 * len * (len + 1.0) * static_cast<double>(options_.num_q_heads);
  const double flop = 4.0 * pairs * static_cast<double>(options_.head_dim);
  report_.print({{"op", "prefill_attention"}, {"tokens", len}}, time,
                {{"tflops", rounded(flop / time.ms * 1e-9, 1)}});
}

PbsInput Bench::input(const Layer& layer, const PbsJob& job, const PbsParams& params) const {
  return {.plan = layer.plan,
          .pages = {.k = layer.k, .v = layer.v, .k_mean = layer.k_mean, .k_var = layer.k_var},
          .block_table = layer.table.at(0),
          .q = layer.q.rows(job.begin, job.end),
          .job = job,
          .params = params,
          .scale = scale()};
}

// Draws the job's blocks; returns how many are attended, the own segments' included.
int64_t Bench::force_mask(const Layer& layer, const PbsJob& job, double density) {
  int64_t num_selected = 0;
  fill_zero(layer.num_selected.data, sizeof(num_selected), stream_);
  pbs_force_mask({.mask = layer.plan.mask,
                  .job = job,
                  .block_begin = 0,
                  .block_end = job.num_blocks(),
                  .num_selected = layer.num_selected,
                  .segment = PbsParams{}.segment,
                  .density = static_cast<float>(density)},
                 stream_);
  copy_to_host(&num_selected, layer.num_selected.data, sizeof(num_selected), stream_);
  stream_.synchronize();
  return num_selected;
}

OpTime Bench::order_time(const Layer& layer, const PbsJob& job) {
  return timer_.time([&] { pbs_order({input(layer, job, {})}, stream_); });
}

OpTime Bench::select_time(const Layer& layer, const PbsJob& job, const PbsParams& params) {
  return timer_.time([&] {
    pbs_select({.input = input(layer, job, params),
                .block_begin = 0,
                .block_end = job.num_blocks(),
                .num_selected = layer.num_selected},
               stream_);
  });
}

OpTime Bench::audit_time(const Layer& layer, const PbsJob& job) {
  constexpr int32_t kPeriod = 64;  // the product's
  return timer_.time([&] {
    pbs_audit({.input = input(layer, job, {}),
               .block_begin = 0,
               .block_end = job.num_blocks(),
               .period = kPeriod,
               .coverage = layer.coverage},
              stream_);
  });
}

OpTime Bench::attend_time(const Layer& layer, const PbsJob& job) {
  return timer_.time([&] {
    pbs_prefill({.input = input(layer, job, {}),
                 .block_begin = 0,
                 .block_end = job.num_blocks(),
                 .out = layer.out.rows(job.begin, job.end)},
                stream_);
  });
}

// Over all jobs of the prompt: what a layer costs. The pages hold noise, as if earlier jobs had
// ordered them, and so do their moments: no time depends on a variance below zero.
void Bench::pbs_stages(Layer layer) {
  const auto len = static_cast<int32_t>(layer.q.dim(0));
  const int32_t job_rows = options_.span == 0 ? len : std::min(options_.job, len);
  const int64_t num_pages = layer.k.dim(0);
  layer.plan = take_plan(len, job_rows);
  for (const Tensor& own : {layer.plan.own.k, layer.plan.own.v}) inputs_.fill_noise(own);
  layer.k_mean = inputs_.take_noise({num_pages, options_.num_kv_heads, options_.head_dim});
  layer.k_var = inputs_.take_noise({num_pages, options_.num_kv_heads, options_.head_dim});
  layer.num_selected = inputs_.take_all<int64_t>({0}, {1});
  layer.coverage = inputs_.take_all(std::vector<int64_t>(static_cast<size_t>(options_.num_q_heads)),
                                    {options_.num_q_heads});
  const auto sum_of_jobs = [&](const std::function<OpTime(const PbsJob&)>& stage_time) {
    OpTime total;
    for (int32_t begin = 0; begin < len; begin += job_rows) {
      total += stage_time({.begin = begin,
                           .end = std::min(begin + job_rows, len),
                           .span_len = options_.span,
                           .prompt_len = len});
    }
    return total;
  };
  const auto print = [&](const char* op, const OpTime& time) {
    report_.print({{"op", op}, {"tokens", len}, {"job", job_rows}, {"span", options_.span}}, time,
                  Json::object());
  };
  print("pbs_order", sum_of_jobs([&](const PbsJob& job) { return order_time(layer, job); }));
  for (const auto& [name, params] :
       {std::pair<const char*, PbsParams>{"pbs_select_mass", {}},
        {"pbs_select_query", top_p(PbsScorer::kQuery, 0.75f)},
        {"pbs_select_mean", top_p(PbsScorer::kMean, 0.9f)},
        {"pbs_select_antidiagonal8", top_p(PbsScorer::kAntidiagonal, 0.9f, 8)},
        {"pbs_select_antidiagonal16", top_p(PbsScorer::kAntidiagonal, 0.9f, 16)}}) {
    print(name, sum_of_jobs([&](const PbsJob& job) { return select_time(layer, job, params); }));
  }
  print("pbs_audit", sum_of_jobs([&](const PbsJob& job) { return audit_time(layer, job); }));
  for (const double density : options_.densities) {
    int64_t blocks = 0;
    const OpTime time = sum_of_jobs([&](const PbsJob& job) {
      blocks += force_mask(layer, job, density);
      return attend_time(layer, job);
    });
    const auto causal =
        static_cast<double>(num_causal_blocks({.begin = 0, .end = len}, options_.num_q_heads));
    const auto attended = static_cast<double>(blocks);
    const double flop =
        4.0 * attended * kPbsBlock * kPbsBlock * static_cast<double>(options_.head_dim);
    report_.print({{"op", "pbs_prefill"},
                   {"tokens", len},
                   {"job", job_rows},
                   {"forced_density", rounded(attended / causal, 4)}},
                  time, {{"tflops_of_computed_blocks", rounded(flop / time.ms * 1e-9, 1)}});
  }
}

void Bench::decode(int32_t len) {
  for (const int32_t batch : options_.batches) {
    const int64_t row_pages = ceil_div<int64_t>(len, kPageSize);
    const int64_t num_pages = row_pages * batch;
    const int64_t token_bytes = 2 * options_.num_kv_heads * options_.head_dim * 2;
    if (num_pages * kPageSize * token_bytes > int64_t{40} << 30) {
      std::fprintf(stderr, "decode %d x %d tokens: left out, more than 40 GiB of K/V\n", batch,
                   len);
      continue;
    }
    const Tensor tables = inputs_.take_page_table(batch, row_pages);
    const Tensor lens =
        inputs_.take_all(std::vector<int32_t>(static_cast<size_t>(batch), len), {batch});
    const Tensor k = take_pages(num_pages);
    const Tensor v = take_pages(num_pages);
    const Tensor q = inputs_.take_noise({batch, options_.num_q_heads, options_.head_dim});
    const Tensor out = inputs_.take(DType::kBF16, {batch, options_.num_q_heads, options_.head_dim});
    const int64_t scratch_bytes =
        decode_scratch_bytes(stream_.device(), {.num_rows_max = batch,
                                                .num_q_heads = options_.num_q_heads,
                                                .head_dim = options_.head_dim});
    const Tensor scratch =
        scratch_bytes == 0 ? Tensor() : inputs_.take(DType::kU8, {scratch_bytes});
    const OpTime time = timer_.time([&] {
      decode_attention({.out = out,
                        .q = q,
                        .k_pages = k,
                        .v_pages = v,
                        .block_tables = tables,
                        .context_lens = lens,
                        .scratch = scratch,
                        .scale = scale()},
                       stream_);
    });
    const double bytes = static_cast<double>(token_bytes) * len * batch;
    report_.print({{"op", "decode_attention"}, {"batch", batch}, {"tokens", len}}, time,
                  {{"kv_tbytes_per_s", rounded(bytes / time.ms * 1e-9, 3)}});
    inputs_.drop_all();
  }
}

void Bench::run() {
  for (const int32_t len : options_.tokens) {
    if (!options_.has("prefill") && !options_.has("pbs")) break;
    const Layer layer = take_layer(len);
    if (options_.has("prefill")) prefill(layer);
    if (options_.has("pbs")) pbs_stages(layer);
    inputs_.drop_all();
  }
  if (options_.has("decode")) {
    for (const int32_t len : options_.tokens) decode(len);
  }
  const ProductShapes shapes{.q_size = options_.num_q_heads * options_.head_dim,
                             .kv_size = options_.num_kv_heads * options_.head_dim,
                             .hidden = options_.hidden,
                             .ffn = options_.ffn,
                             .rows = options_.rows};
  if (options_.has("products")) time_products(shapes, stream_, timer_, report_);
  if (options_.has("swiglu")) time_swiglu(shapes, stream_, timer_, report_);
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Times of single operations, one JSON line each");
  app.add_option("--ops", options.ops,
                 "prefill,pbs,decode,products,swiglu; all of them if left out")
      ->delimiter(',')
      ->check(CLI::IsMember({"prefill", "pbs", "decode", "products", "swiglu"}));
  app.add_option("--commit", options.commit, "of this build, for the lines")->capture_default_str();
  app.add_option("--device", options.device, "auto, cpu or cuda")->capture_default_str();
  app.add_option("--threads", options.threads, "of the CPU; 0 = all");
  app.add_option("--q-heads", options.num_q_heads)->capture_default_str();
  app.add_option("--kv-heads", options.num_kv_heads)->capture_default_str();
  app.add_option("--head-dim", options.head_dim)->capture_default_str();
  app.add_option("--hidden", options.hidden)->capture_default_str();
  app.add_option("--ffn", options.ffn)->capture_default_str();
  app.add_option("--tokens", options.tokens, "contexts of attention")->delimiter(',');
  app.add_option("--densities", options.densities, "of the sparse prefill")->delimiter(',');
  app.add_option("--rows", options.rows, "of the matrix products")->delimiter(',');
  app.add_option("--batches", options.batches, "of decode attention")->delimiter(',');
  app.add_option("--span", options.span, "of PBS; 0 = the whole prompt")->capture_default_str();
  app.add_option("--job", options.job, "rows planned together")->capture_default_str();
  app.add_option("--runs", options.runs, "of each operation, as far as 2 s allow; at least 5")
      ->capture_default_str()
      ->check(CLI::Range(OpTimer::kRunsMin, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  const auto choice = choose_device(options.device);
  check(choice.ok(), choice.status().ToString());
  const auto info = device_info(choice->device);
  check(info.ok(), info.status().ToString());
  auto stream = Stream::create(choice->device, options.threads);
  check(stream.ok(), stream.status().ToString());
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Bench(options, *std::move(stream), OpReport(info->name, options.commit)).run();
  return 0;
}

}  // namespace
}  // namespace pbserve::kernels

int main(int argc, char** argv) { return pbserve::kernels::run(argc, argv); }
