// How far PBS moves a model's answers from those of dense attention, in nats: a far finer measure
// of a setting than right answers are (ruler.py), and cheap enough to compare many settings.
//
// --prompts has JSON lines {"ids": [...], "answer": n}, as divergence_prompts.py writes them: a
// prompt and the n tokens that dense attention answers. For every threshold a line goes out: the
// mean over the prompts of KL(dense, PBS) of the next token's distributions over the answer, its
// standard error, their median, the share of answer tokens that stay the most likely, the density.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/config.h"
#include "tests/bench/long_forward.h"

namespace pbserve::bench {
namespace {

using Json = nlohmann::ordered_json;
using kernels::PbsParams;
using kernels::PbsScorer;

struct Options {
  std::string model;
  std::string prompts;
  std::string device = "auto";
  PbsScorer scorer = PbsScorer::kMass;
  std::vector<float> thresholds;  // empty: the scorer's own
};

struct Prompt {
  std::vector<int32_t> ids;
  int64_t num_answer;
};

std::vector<Prompt> read_prompts(const std::string& path) {
  std::ifstream file(path);
  std::vector<Prompt> prompts;
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line);
    Prompt prompt{json.at("ids").get<std::vector<int32_t>>(), json.at("answer").get<int64_t>()};
    if (prompt.num_answer > 0) prompts.push_back(std::move(prompt));  // else nothing to compare
  }
  return prompts;
}

// Row by row log-softmax, in place.
void normalize(std::vector<float>& logits, int64_t vocab_size) {
  for (auto row = logits.begin(); row != logits.end(); row += vocab_size) {
    const float top = *std::max_element(row, row + vocab_size);
    double sum = 0;
    for (auto x = row; x != row + vocab_size; ++x) sum += std::exp(double{*x - top});
    const auto log_sum = top + static_cast<float>(std::log(sum));
    for (auto x = row; x != row + vocab_size; ++x) *x -= log_sum;
  }
}

// Of one prompt.
struct Loss {
  double divergence = 0;  // nats, mean over the answer's tokens
  double same = 0;        // share of its tokens
  double density = 1;
};

Loss loss_of(const std::vector<float>& dense, const std::vector<float>& sparse,
             int64_t vocab_size) {
  Loss loss;
  const auto num_rows = static_cast<int64_t>(dense.size()) / vocab_size;
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* p = dense.data() + row * vocab_size;
    const float* q = sparse.data() + row * vocab_size;
    for (int64_t v = 0; v < vocab_size; ++v)
      loss.divergence += std::exp(double{p[v]}) * (p[v] - q[v]);
    loss.same += std::max_element(p, p + vocab_size) - p == std::max_element(q, q + vocab_size) - q;
  }
  loss.divergence /= static_cast<double>(num_rows);
  loss.same /= static_cast<double>(num_rows);
  return loss;
}

PbsParams params_of(PbsScorer scorer, float threshold) {
  return {.scorer = scorer, .selector = kernels::default_selector(scorer), .threshold = threshold};
}

Json summary(float threshold, const std::vector<Loss>& losses) {
  const auto count = static_cast<double>(losses.size());
  Loss mean{.density = 0};
  double squares = 0;
  std::vector<double> sorted;
  for (const Loss& loss : losses) {
    sorted.push_back(loss.divergence);
    mean.divergence += loss.divergence / count;
    mean.same += loss.same / count;
    mean.density += loss.density / count;
    squares += loss.divergence * loss.divergence;
  }
  std::ranges::sort(sorted);
  const double variance = squares / count - mean.divergence * mean.divergence;
  return {{"threshold", threshold},
          {"prompts", losses.size()},
          {"divergence", mean.divergence},
          {"standard_error", std::sqrt(variance / count)},
          {"median", sorted[sorted.size() / 2]},
          {"same_tokens", mean.same},
          {"density", mean.density}};
}

absl::Status run(const Options& options) {
  ASSIGN_OR_RETURN(const kernels::DeviceChoice choice, kernels::choose_device(options.device));
  ASSIGN_OR_RETURN(const kernels::Stream stream, kernels::Stream::create(choice.device, 0));
  ASSIGN_OR_RETURN(const models::ModelConfig config, models::load_model_config(options.model, ""));
  ASSIGN_OR_RETURN(auto weights,
                   models::WeightStore::load(options.model, config, kernels::DType::kBF16, stream));
  ASSIGN_OR_RETURN(const auto model,
                   models::Transformer::create(config, std::move(weights), stream));
  const std::vector<Prompt> prompts = read_prompts(options.prompts);
  if (prompts.empty()) return absl::InvalidArgumentError(options.prompts + ": no answer in it");
  std::vector<float> thresholds = options.thresholds;
  if (thresholds.empty()) thresholds.push_back(kernels::default_threshold(options.scorer));
  size_t num_tokens_max = 1;
  for (const Prompt& prompt : prompts) num_tokens_max = std::max(num_tokens_max, prompt.ids.size());
  LongForward forward(model, static_cast<int64_t>(num_tokens_max), stream);

  std::vector<std::vector<Loss>> losses(thresholds.size());
  for (const auto& [ids, num_answer] : prompts) {
    // The last token predicts what comes after the answer.
    const auto seen = std::span(ids).first(ids.size() - 1);
    std::vector<float> dense = forward.run(seen, num_answer, std::nullopt).logits;
    normalize(dense, config.vocab_size);
    for (size_t i = 0; i < losses.size(); ++i) {
      ForwardResult sparse =
          forward.run(seen, num_answer, params_of(options.scorer, thresholds[i]));
      normalize(sparse.logits, config.vocab_size);
      losses[i].push_back(loss_of(dense, sparse.logits, config.vocab_size));
      losses[i].back().density = sparse.density;
    }
  }
  for (size_t i = 0; i < losses.size(); ++i) {
    std::printf("%s\n", summary(thresholds[i], losses[i]).dump().c_str());
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace pbserve::bench

int main(int argc, char** argv) {
  using pbserve::kernels::PbsScorer;
  pbserve::bench::Options options;
  CLI::App app("How far PBS moves a model's answers from those of dense attention");
  app.add_option("--model", options.model, "folder in the Hugging Face layout")->required();
  app.add_option("--prompts", options.prompts, "JSON lines of divergence_prompts.py")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--device", options.device)->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  const std::map<std::string, PbsScorer> scorers = {{"mass", PbsScorer::kMass},
                                                    {"query", PbsScorer::kQuery},
                                                    {"mean", PbsScorer::kMean},
                                                    {"antidiagonal", PbsScorer::kAntidiagonal}};
  app.add_option("--scorer", options.scorer)->transform(CLI::CheckedTransformer(scorers));
  app.add_option("--thresholds", options.thresholds, "of the selector")->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = pbserve::bench::run(options);
  if (!status.ok()) std::fprintf(stderr, "divergence: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
