// Writes the logits that a model folder gives for a list of token ids, as tests/parity/parity.py
// compares them with those of `transformers`.
//
// --ids holds int32 values, --out gets float32 values, both bare and in the machine's byte order.
// Rows go out in order, V values each: every row from --decode-from on, and of those before it rows
// 0, N, 2N, ... for --every N.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/run_transformer.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using models::ModelConfig;

struct Options {
  std::string model;
  std::string ids;
  std::string out;
  std::string device = "auto";
  std::string dtype = "bfloat16";
  int threads = 0;           // of the CPU; 0 = one per hardware thread
  int64_t slice = 512;       // rows per pass through the layers
  int64_t decode_from = -1;  // rows from here on are decoded one by one; -1 = none
  int64_t every = 1;
};

absl::StatusOr<std::vector<int32_t>> read_ids(const std::string& path, const ModelConfig& config) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const auto num_bytes = static_cast<int64_t>(file.tellg());
  const auto size = static_cast<int64_t>(sizeof(int32_t));
  if (!file || num_bytes <= 0 || num_bytes % size != 0) {
    return absl::InvalidArgumentError(path + ": not a file of int32 values");
  }
  std::vector<int32_t> ids(static_cast<size_t>(num_bytes / size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(ids.data()), num_bytes);
  if (!file) return absl::DataLossError(path + ": cannot be read");
  if (std::ssize(ids) > config.max_position) {
    return absl::InvalidArgumentError(path + ": " + std::to_string(ids.size()) +
                                      " ids, the model takes " +
                                      std::to_string(config.max_position));
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(path + ": id " + std::to_string(id) +
                                        " is outside the vocabulary");
    }
  }
  return ids;
}

absl::Status run(const Options& options) {
  const DType dtype = options.dtype == "float32" ? DType::kF32 : DType::kBF16;
  ASSIGN_OR_RETURN(const kernels::DeviceChoice choice, kernels::choose_device(options.device));
  if (choice.device.kind == kernels::DeviceKind::kCuda && dtype != DType::kBF16) {
    return absl::InvalidArgumentError("--dtype float32 needs --device cpu");
  }
  ASSIGN_OR_RETURN(const kernels::Stream stream,
                   kernels::Stream::create(choice.device, options.threads));
  ASSIGN_OR_RETURN(const ModelConfig config, models::load_model_config(options.model, ""));
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, read_ids(options.ids, config));
  ASSIGN_OR_RETURN(auto weights, models::WeightStore::load(options.model, config, dtype, stream));
  ASSIGN_OR_RETURN(const auto model,
                   models::Transformer::create(config, std::move(weights), stream));

  std::ofstream out(options.out, std::ios::binary);
  if (!out) return absl::PermissionDeniedError(options.out + ": cannot be written");
  const RunOptions run_options{.slice_len = options.slice, .decode_from = options.decode_from};
  const int64_t decode_from = options.decode_from < 0 ? std::ssize(ids) : options.decode_from;
  const auto write = [&](int64_t begin, std::span<const float> logits) {
    const auto vocab_size = static_cast<size_t>(config.vocab_size);
    for (int64_t t = begin; !logits.empty(); ++t, logits = logits.subspan(vocab_size)) {
      if (t < decode_from && t % options.every != 0) continue;
      out.write(reinterpret_cast<const char*>(logits.data()),
                static_cast<std::streamsize>(vocab_size * sizeof(float)));
    }
  };
  visit_logits(model, ids, run_options, stream, write);
  out.close();
  if (!out) return absl::DataLossError(options.out + ": cannot be written");
  return absl::OkStatus();
}

}  // namespace
}  // namespace pbserve::test

int main(int argc, char** argv) {
  pbserve::test::Options options;
  CLI::App app("Writes the logits of a model for given token ids");
  app.add_option("--model", options.model, "folder in the Hugging Face layout")->required();
  app.add_option("--ids", options.ids, "file of int32 token ids")->required();
  app.add_option("--out", options.out, "file for the float32 logits")->required();
  app.add_option("--device", options.device)->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"bfloat16", "float32"}));
  app.add_option("--threads", options.threads, "of the CPU; 0 = one per hardware thread");
  app.add_option("--slice", options.slice, "rows per pass")->check(CLI::Range(1, 1 << 20));
  app.add_option("--decode-from", options.decode_from, "first row to decode; -1 = none");
  app.add_option("--every", options.every, "of the rows before it, keep every N-th")
      ->check(CLI::Range(1, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pbserve::test::run(options);
  if (!status.ok()) std::fprintf(stderr, "dump_logits: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
