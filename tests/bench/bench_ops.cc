// Times of single operations on either backend, one JSON line each: dense and sparse prefill
// attention, the stages of PBS, decode attention, matrix products. The defaults are a layer of
// Llama-3.1-8B.
//
// Inputs are random, and random queries and keys have no structure that a selector could use: the
// mask of the sparse prefill is drawn with `forced_density`, said in its line. The stages before it
// do all their work on the random inputs.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/workspace.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/pbs.h"

namespace pbserve::kernels {
namespace {

struct Options {
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
  int32_t span = 8192;
  int runs = 20;
};

class Bench {
 public:
  Bench(const Options& options, Stream stream) : options_(options), stream_(std::move(stream)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (BF16& value : noise_) value = from_f32<BF16>(normal(random));
  }

  void products();
  void prefill(int32_t len);
  void decode(int32_t len);

 private:
  // The attention of one layer over a whole prompt.
  struct Layer {
    Tensor q;      // [T, Hq, D]
    Tensor out;    // [T, Hq, D]
    Tensor k;      // [num_pages, Hkv, P, D]
    Tensor v;      // [num_pages, Hkv, P, D]
    Tensor table;  // [1, num_pages] int32
    PbsPlan plan = {};
    Tensor num_selected = {};  // [1] int64
  };

  Tensor take(DType dtype, std::initializer_list<int64_t> dims);
  Tensor take_noise(std::initializer_list<int64_t> dims);
  Tensor take_pages(int64_t num_pages) {
    return take_noise({num_pages, options_.num_kv_heads, kPageSize, options_.head_dim});
  }
  template <class T>
  Tensor take_filled(const std::vector<T>& values, std::initializer_list<int64_t> dims);
  PbsPlan take_plan(int32_t len, int32_t span_len);
  double median_ms(const std::function<void()>& work);
  double order_ms(const Layer& layer, PbsSpan span);
  double select_ms(const Layer& layer, PbsSpan span, const PbsParams& params);
  double attend_ms(const Layer& layer, PbsSpan span);
  void pbs_stages(Layer layer);
  double draw_mask(const PbsPlan& plan, PbsSpan span, double density);
  float scale() const { return 1.f / std::sqrt(static_cast<float>(options_.head_dim)); }

  const Options& options_;
  Stream stream_;
  std::vector<BF16> noise_ = std::vector<BF16>(1 << 22);
  std::vector<DeviceBuffer> memory_;
};

Tensor Bench::take(DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor(nullptr, dtype, dims);
  auto buffer =
      DeviceBuffer::create(stream_.device(), static_cast<size_t>(tensor.numel()) * size_of(dtype));
  check(buffer.ok(), buffer.status().ToString());
  memory_.push_back(*std::move(buffer));
  tensor.data = memory_.back().data();
  return tensor;
}

Tensor Bench::take_noise(std::initializer_list<int64_t> dims) {
  const Tensor tensor = take(DType::kBF16, dims);
  const auto size = static_cast<int64_t>(noise_.size());
  for (int64_t i = 0; i < tensor.numel(); i += size) {
    copy_to_device(tensor.as<BF16>() + i, noise_.data(),
                   static_cast<size_t>(std::min(size, tensor.numel() - i)) * sizeof(BF16), stream_);
  }
  return tensor;
}

template <class T>
Tensor Bench::take_filled(const std::vector<T>& values, std::initializer_list<int64_t> dims) {
  const Tensor tensor = take(kDTypeOf<T>, dims);
  copy_to_device(tensor.data, values.data(), values.size() * sizeof(T), stream_);
  stream_.synchronize();
  return tensor;
}

PbsPlan Bench::take_plan(int32_t len, int32_t span_len) {
  const PbsPlanShape shape{.num_q_heads = options_.num_q_heads,
                           .num_kv_heads = options_.num_kv_heads,
                           .head_dim = options_.head_dim,
                           .context_len_max = len,
                           .span_len_max = span_len,
                           .dtype = DType::kBF16};
  Workspace measure;
  take_pbs_plan(shape, stream_.device(), measure);
  const Tensor bytes = take(DType::kU8, {static_cast<int64_t>(measure.used_bytes())});
  Workspace workspace(static_cast<std::byte*>(bytes.data), measure.used_bytes());
  return take_pbs_plan(shape, stream_.device(), workspace);
}

double Bench::median_ms(const std::function<void()>& work) {
  work();  // warms up
  std::vector<double> times;
  double total_ms = 0;
  Event begin(stream_);
  Event end(stream_);
  while (static_cast<int>(times.size()) < options_.runs && (times.size() < 3 || total_ms < 2000)) {
    begin.record(stream_);
    work();
    end.record(stream_);
    end.wait();
    times.push_back(end.ms_since(begin));
    total_ms += times.back();
  }
  std::ranges::sort(times);
  return times[times.size() / 2];
}

void Bench::products() {
  const int64_t q_size = options_.num_q_heads * options_.head_dim;
  const int64_t qkv_size = q_size + 2 * options_.num_kv_heads * options_.head_dim;
  struct Shape {
    const char* name;
    int64_t num_out;
    int64_t num_in;
  };
  for (const Shape& shape : {Shape{"qkv", qkv_size, options_.hidden},
                             {"out", options_.hidden, q_size},
                             {"gate_up", 2 * options_.ffn, options_.hidden},
                             {"down", options_.hidden, options_.ffn}}) {
    const int64_t numel = packed_weight_numel(stream_.device(), shape.num_out, shape.num_in);
    const LinearWeight weight{take_noise({numel}), shape.num_out, shape.num_in};
    for (const int32_t rows : options_.rows) {
      const Tensor x = take_noise({rows, shape.num_in});
      const Tensor y = take(DType::kBF16, {rows, shape.num_out});
      const double ms =
          median_ms([&] { linear({.y = y, .x = x, .weight = weight, .bias = {}}, stream_); });
      const double flop = 2.0 * rows * static_cast<double>(shape.num_out * shape.num_in);
      const double bytes = 2.0 * static_cast<double>(shape.num_out * shape.num_in);
      std::printf(
          "{\"op\":\"linear\",\"name\":\"%s\",\"rows\":%d,\"ms\":%.4f,\"tflops\":%.1f,"
          "\"weight_gbytes_per_s\":%.0f}\n",
          shape.name, rows, ms, flop / ms * 1e-9, bytes / ms * 1e-6);
      memory_.resize(memory_.size() - 2);
    }
  }
  memory_.clear();
}

void Bench::prefill(int32_t len) {
  const int64_t num_pages = ceil_div<int64_t>(len, kPageSize);
  std::vector<int32_t> pages(static_cast<size_t>(num_pages));
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  std::ranges::shuffle(pages, std::mt19937(3));
  const Tensor table = take_filled(pages, {1, num_pages});
  const Tensor k = take_pages(num_pages);
  const Tensor v = take_pages(num_pages);
  const Tensor q = take_noise({len, options_.num_q_heads, options_.head_dim});
  const Tensor out = take(DType::kBF16, {len, options_.num_q_heads, options_.head_dim});
  const PrefillSegment segment{.row_begin = 0, .num_rows = len, .position = 0, .sequence = 0};
  const double ms = median_ms([&] {
    prefill_attention({.out = out,
                       .q = q,
                       .k_pages = k,
                       .v_pages = v,
                       .block_tables = table,
                       .segments = {&segment, 1},
                       .scale = scale()},
                      stream_);
  });
  const double pairs = 0.5 * len * (len + 1.0) * static_cast<double>(options_.num_q_heads);
  const double flop = 4.0 * pairs * static_cast<double>(options_.head_dim);
  std::printf("{\"op\":\"prefill_attention\",\"tokens\":%d,\"ms\":%.4f,\"tflops\":%.1f}\n", len, ms,
              flop / ms * 1e-9);
  pbs_stages({.q = q, .out = out, .k = k, .v = v, .table = table});
  memory_.clear();
}

// Sets the bits of a share of all causal blocks, the own segments' included; returns the share.
double Bench::draw_mask(const PbsPlan& plan, PbsSpan span, double density) {
  const Tensor& mask = plan.mask;
  std::vector<uint32_t> words(static_cast<size_t>(mask.numel()));
  std::mt19937 random(5);
  int64_t attended = 0;
  for (int64_t head = 0; head < mask.dim(0); ++head) {
    for (int32_t block = 0; block < ceil_div(span.num_rows(), kPbsBlock); ++block) {
      const int32_t block_idx = span.begin / kPbsBlock + block;
      const int32_t candidates = align_down(block_idx, PbsParams{}.segment / kPbsBlock);
      const int32_t own = block_idx - candidates + 1;
      const double wanted = density * (block_idx + 1) - own;
      std::bernoulli_distribution taken(candidates > 0 ? std::clamp(wanted / candidates, 0.0, 1.0)
                                                       : 0.0);
      uint32_t* row = words.data() + head * mask.stride[0] + block * mask.stride[1];
      attended += own;
      for (int32_t j = 0; j < candidates; ++j) {
        if (!taken(random)) continue;
        row[j / 32] |= 1u << (j % 32);
        ++attended;
      }
    }
  }
  copy_to_device(mask.data, words.data(), words.size() * sizeof(uint32_t), stream_);
  stream_.synchronize();
  return static_cast<double>(attended) /
         static_cast<double>(num_causal_blocks(span, options_.num_q_heads));
}

double Bench::order_ms(const Layer& layer, PbsSpan span) {
  return median_ms([&] {
    pbs_order({.plan = layer.plan,
               .q = layer.q.rows(span.begin, span.end),
               .k_pages = layer.k,
               .v_pages = layer.v,
               .block_table = layer.table.at(0),
               .span = span,
               .params = {},
               .scale = scale()},
              stream_);
  });
}

double Bench::select_ms(const Layer& layer, PbsSpan span, const PbsParams& params) {
  return median_ms([&] {
    pbs_select({.plan = layer.plan,
                .q = layer.q.rows(span.begin, span.end),
                .span = span,
                .block_begin = 0,
                .block_end = ceil_div(span.num_rows(), kPbsBlock),
                .num_selected = layer.num_selected,
                .params = params,
                .scale = scale()},
               stream_);
  });
}

double Bench::attend_ms(const Layer& layer, PbsSpan span) {
  return median_ms([&] {
    pbs_prefill({.out = layer.out.rows(span.begin, span.end),
                 .plan = layer.plan,
                 .q = layer.q.rows(span.begin, span.end),
                 .k_pages = layer.k,
                 .v_pages = layer.v,
                 .block_table = layer.table.at(0),
                 .span = span,
                 .block_begin = 0,
                 .block_end = ceil_div(span.num_rows(), kPbsBlock),
                 .segment = PbsParams{}.segment,
                 .scale = scale()},
                stream_);
  });
}

// Over all spans of the prompt: what a layer costs.
void Bench::pbs_stages(Layer layer) {
  const auto len = static_cast<int32_t>(layer.q.dim(0));
  const int32_t span_len = options_.span == 0 ? len : std::min(options_.span, len);
  layer.plan = take_plan(len, span_len);
  layer.num_selected = take_filled<int64_t>({0}, {1});
  const auto sum_of_spans = [&](const std::function<double(PbsSpan)>& stage_ms) {
    double total_ms = 0;
    for (int32_t begin = 0; begin < len; begin += span_len) {
      total_ms += stage_ms({.begin = begin, .end = std::min(begin + span_len, len)});
    }
    return total_ms;
  };
  const auto print = [&](const char* op, double ms) {
    std::printf("{\"op\":\"%s\",\"tokens\":%d,\"span\":%d,\"ms\":%.4f}\n", op, len, span_len, ms);
  };
  print("pbs_order", sum_of_spans([&](PbsSpan span) { return order_ms(layer, span); }));
  for (const auto& [name, params] :
       {std::pair<const char*, PbsParams>{"pbs_select_mean", {.scorer = PbsScorer::kMean}},
        {"pbs_select_antidiagonal8", {.scorer = PbsScorer::kAntidiagonal, .stride = 8}},
        {"pbs_select_antidiagonal16", {.scorer = PbsScorer::kAntidiagonal, .stride = 16}}}) {
    print(name, sum_of_spans([&](PbsSpan span) { return select_ms(layer, span, params); }));
  }
  for (const double density : options_.densities) {
    double blocks = 0;
    double causal = 0;
    const double ms = sum_of_spans([&](PbsSpan span) {
      const auto of_span = static_cast<double>(num_causal_blocks(span, options_.num_q_heads));
      blocks += draw_mask(layer.plan, span, density) * of_span;
      causal += of_span;
      return attend_ms(layer, span);
    });
    const double flop =
        4.0 * blocks * kPbsBlock * kPbsBlock * static_cast<double>(options_.head_dim);
    std::printf(
        "{\"op\":\"pbs_prefill\",\"tokens\":%d,\"span\":%d,\"forced_density\":%.4f,\"ms\":%.4f,"
        "\"tflops_of_computed_blocks\":%.1f}\n",
        len, span_len, blocks / causal, ms, flop / ms * 1e-9);
  }
}

void Bench::decode(int32_t len) {
  for (const int32_t batch : options_.batches) {
    const int64_t row_pages = ceil_div<int64_t>(len, kPageSize);
    const int64_t num_pages = row_pages * batch;
    const int64_t token_bytes = 2 * options_.num_kv_heads * options_.head_dim * 2;
    if (num_pages * kPageSize * token_bytes > int64_t{40} << 30) continue;
    std::vector<int32_t> pages(static_cast<size_t>(num_pages));
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
    std::ranges::shuffle(pages, std::mt19937(3));
    const Tensor tables = take_filled(pages, {batch, row_pages});
    const Tensor lens = take_filled(std::vector<int32_t>(static_cast<size_t>(batch), len), {batch});
    const Tensor k = take_pages(num_pages);
    const Tensor v = take_pages(num_pages);
    const Tensor q = take_noise({batch, options_.num_q_heads, options_.head_dim});
    const Tensor out = take(DType::kBF16, {batch, options_.num_q_heads, options_.head_dim});
    const int64_t scratch_bytes =
        decode_scratch_bytes(stream_.device(), {.num_rows_max = batch,
                                                .num_q_heads = options_.num_q_heads,
                                                .head_dim = options_.head_dim});
    const Tensor scratch = scratch_bytes == 0 ? Tensor() : take(DType::kU8, {scratch_bytes});
    const double ms = median_ms([&] {
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
    std::printf(
        "{\"op\":\"decode_attention\",\"batch\":%d,\"tokens\":%d,\"ms\":%.4f,"
        "\"kv_tbytes_per_s\":%.3f}\n",
        batch, len, ms, bytes / ms * 1e-9);
    memory_.clear();
  }
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Times of single operations, one JSON line each");
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
  app.add_option("--runs", options.runs, "at most; the median counts")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const auto choice = choose_device(options.device);
  check(choice.ok(), choice.status().ToString());
  const auto info = device_info(choice->device);
  check(info.ok(), info.status().ToString());
  auto stream = Stream::create(choice->device, options.threads);
  check(stream.ok(), stream.status().ToString());
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("{\"device\":\"%s\"}\n", info->name.c_str());
  Bench bench(options, *std::move(stream));
  for (const int32_t len : options.tokens) bench.prefill(len);
  for (const int32_t len : options.tokens) bench.decode(len);
  bench.products();
  return 0;
}

}  // namespace
}  // namespace pbserve::kernels

int main(int argc, char** argv) { return pbserve::kernels::run(argc, argv); }
