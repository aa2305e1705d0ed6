// The demo model on 2,000 tokens of documentation text against `transformers` in float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>

#include "models/transformer.h"
#include "tests/support/backends.h"
#include "tests/support/expected_tensors.h"
#include "tests/support/run_transformer.h"

namespace pbserve::models {
namespace {

using kernels::DType;
using kernels::Stream;
using Clock = std::chrono::steady_clock;

constexpr const char* kDemo = PBSERVE_SOURCE_DIR "/models/demo";

class DemoParity : public ::testing::TestWithParam<test::Backend> {
 protected:
  // Logits [T, V] of the fixture's text.
  std::vector<float> run(DType dtype, size_t num_tokens) {
    const auto start = Clock::now();
    const auto config = load_model_config(kDemo, "");
    check(config.ok(), config.status().ToString());
    auto weights = WeightStore::load(kDemo, *config, dtype, stream_);
    check(weights.ok(), weights.status().ToString());
    const Transformer model = *Transformer::create(*config, *std::move(weights), stream_);
    const auto loaded = Clock::now();
    vocab_size_ = static_cast<size_t>(config->vocab_size);
    ids_.resize(num_tokens);
    std::vector<float> logits = test::run_transformer(model, ids_, {.slice_len = 512}, stream_);
    const std::chrono::duration<double> load_s = loaded - start;
    const std::chrono::duration<double> run_s = Clock::now() - loaded;
    std::cout << name_of(dtype) << ": loaded in " << load_s.count() << " s, " << num_tokens
              << " tokens in " << run_s.count() << " s\n";
    return logits;
  }

  const Stream stream_ = test::stream_of(GetParam());
  const test::ExpectedTensors expected_{PBSERVE_SOURCE_DIR
                                        "/tests/models/fixtures/demo/expected.safetensors"};
  std::vector<int32_t> ids_ = expected_.get<int32_t>("ids");
  size_t vocab_size_ = 0;
};

TEST_P(DemoParity, LogitsInFloat32) {
  if (stream_.is_cuda()) GTEST_SKIP() << "attention on the GPU is bfloat16 only";
  const auto rows = expected_.get<int32_t>("rows");
  const auto expected = expected_.get<float>("logits");
  const std::vector<float> logits = run(DType::kF32, static_cast<size_t>(rows.back()) + 1);
  ASSERT_EQ(expected.size(), rows.size() * vocab_size_);
  float worst = 0.0f;
  for (size_t i = 0; i < expected.size(); ++i) {
    const size_t at = static_cast<size_t>(rows[i / vocab_size_]) * vocab_size_ + i % vocab_size_;
    worst = std::max(worst, std::abs(logits[at] - expected[i]));
    ASSERT_TRUE(std::isfinite(logits[at]));
  }
  std::cout << "largest error " << worst << "\n";
  EXPECT_LE(worst, 1e-4f);
}

// log(sum(exp(row))).
double log_sum(const float* row, size_t count) {
  const double largest = *std::max_element(row, row + count);
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(row[i]) - largest);
  return largest + std::log(sum);
}

// KL(expected || ours) of one position. The expected log-probabilities are stored as halves, so
// they are normalised again.
double divergence(const uint16_t* log_probs, const float* logits, size_t count) {
  const double ours_sum = log_sum(logits, count);
  std::vector<float> expected(count);
  for (size_t i = 0; i < count; ++i) expected[i] = kernels::f16_bits_to_f32(log_probs[i]);
  const double expected_sum = log_sum(expected.data(), count);
  double kl = 0.0;
  for (size_t i = 0; i < count; ++i) {
    const double log_p = static_cast<double>(expected[i]) - expected_sum;
    const double log_q = static_cast<double>(logits[i]) - ours_sum;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return kl;
}

TEST_P(DemoParity, DistributionsInBfloat16) {
  const std::vector<float> logits = run(DType::kBF16, ids_.size());
  const auto argmax = expected_.get<int32_t>("argmax");
  const auto argmax_log_prob = expected_.get<float>("argmax_log_prob");
  size_t num_equal = 0;
  double worst = 0.0;
  for (size_t t = 0; t < ids_.size(); ++t) {
    const float* row = logits.data() + t * vocab_size_;
    num_equal += std::max_element(row, row + vocab_size_) - row == argmax[t] ? 1 : 0;
    const double log_prob = static_cast<double>(row[argmax[t]]) - log_sum(row, vocab_size_);
    worst = std::max(worst, std::abs(log_prob - static_cast<double>(argmax_log_prob[t])));
  }
  const auto rows = expected_.get<int32_t>("kl_rows");
  const auto log_probs = expected_.get<uint16_t>("log_probs");
  double kl = 0.0;
  for (size_t i = 0; i < rows.size(); ++i) {
    kl += divergence(log_probs.data() + i * vocab_size_,
                     logits.data() + static_cast<size_t>(rows[i]) * vocab_size_, vocab_size_);
  }
  kl /= static_cast<double>(rows.size());
  const double agreement = static_cast<double>(num_equal) / static_cast<double>(ids_.size());
  std::cout << "mean KL " << kl << ", same argmax " << agreement << ", largest difference of its "
            << "log-probability " << worst << "\n";
  EXPECT_LT(kl, 1e-3);
  EXPECT_GE(agreement, 0.99);
  EXPECT_LT(worst, 0.25);
}

INSTANTIATE_TEST_SUITE_P(Backends, DemoParity, ::testing::ValuesIn(test::backends()),
                         test::backend_name);

}  // namespace
}  // namespace pbserve::models
