// The network against `transformers` (fixtures), against the reference in double, and against
// itself: slices, decode and company change no bit.
#include "models/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <tuple>

#include "tests/reference/transformer_ref.h"
#include "tests/support/backends.h"
#include "tests/support/expected_tensors.h"
#include "tests/support/run_transformer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace pbserve::models {
namespace {

using kernels::DType;
using kernels::Stream;

Stream cpu_stream() { return *Stream::create({}, 2); }

Transformer make_model(const std::string& config_folder, const std::string& weights_folder,
                       DType dtype, const Stream& stream) {
  auto config = load_model_config(config_folder, "");
  check(config.ok(), config.status().ToString());
  auto weights = WeightStore::load(weights_folder, *config, dtype, stream);
  check(weights.ok(), weights.status().ToString());
  return *Transformer::create(*config, *std::move(weights), stream);
}

std::vector<int32_t> random_ids(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  uint32_t state = 12345;
  for (int32_t& id : ids) {
    state = state * 1664525u + 1013904223u;
    id = static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(vocab_size));
  }
  return ids;
}

struct Fixture {
  const char* config;   // folder of config.json and expected.safetensors
  const char* weights;  // folder of the weights
};

class Parity : public ::testing::TestWithParam<Fixture> {};

TEST_P(Parity, LogitsInFloat32EqualTransformers) {
  const std::string fixtures = PBSERVE_SOURCE_DIR "/tests/models/fixtures/";
  const std::string folder = fixtures + GetParam().config;
  const Stream stream = cpu_stream();
  const Transformer model = make_model(folder, fixtures + GetParam().weights, DType::kF32, stream);
  const test::ExpectedTensors expected(folder + "/expected.safetensors");
  const auto rows = expected.get<int32_t>("rows");
  const auto logits = expected.get<float>("logits");
  const auto vocab_size = static_cast<size_t>(model.config().vocab_size);
  const std::vector<float> ours =
      test::run_transformer(model, expected.get<int32_t>("ids"), {}, stream);
  ASSERT_EQ(logits.size(), rows.size() * vocab_size);
  float worst = 0.0f;
  for (size_t i = 0; i < logits.size(); ++i) {
    const size_t at = static_cast<size_t>(rows[i / vocab_size]) * vocab_size + i % vocab_size;
    ASSERT_NEAR(ours[at], logits[i], 1e-4f) << "row " << rows[i / vocab_size];
    worst = std::max(worst, std::abs(ours[at] - logits[i]));
  }
  std::cout << GetParam().config << ": largest error " << worst << "\n";
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, Parity,
    ::testing::Values(Fixture{"llama", "llama"}, Fixture{"llama-tied-f32", "llama-tied-f32"},
                      Fixture{"llama-linear", "llama"}, Fixture{"llama-linear-v5", "llama"},
                      Fixture{"llama-llama3", "llama"}, Fixture{"llama-llama3-v5", "llama"},
                      Fixture{"llama-yarn", "llama"}, Fixture{"llama-yarn-v5", "llama"},
                      Fixture{"llama-yarn-mscale", "llama"}, Fixture{"qwen2", "qwen2"},
                      Fixture{"qwen2-yarn", "qwen2"}, Fixture{"qwen3", "qwen3"}));

// Tiny models with heads in groups, under every family.
class TinyTransformer : public ::testing::TestWithParam<const char*> {
 protected:
  TinyTransformer() {
    test::write_tiny_model(folder_.path(),
                           {.architecture = GetParam(),
                            .num_q_heads = 4,
                            .num_kv_heads = 2,
                            .tied_embeddings = GetParam() == std::string("Qwen2ForCausalLM"),
                            .seed = 7});
  }

  Transformer model(DType dtype) const {
    return make_model(folder_.path(), folder_.path(), dtype, stream_);
  }

  test::TempDir folder_;
  Stream stream_ = cpu_stream();
};

TEST_P(TinyTransformer, EqualsTheReference) {
  const Transformer network = model(DType::kF32);
  const std::vector<int32_t> ids = random_ids(70, network.config().vocab_size);
  const std::vector<float> ours = test::run_transformer(network, ids, {}, stream_);
  const std::vector<double> expected =
      reference::transformer_logits(network.config(), reference::load_weights(folder_.path()), ids);
  ASSERT_EQ(ours.size(), expected.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(ours[i]), expected[i], 1e-4) << i;
  }
}

TEST_P(TinyTransformer, SlicesAndDecodeChangeNoBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Transformer network = model(dtype);
    const std::vector<int32_t> ids = random_ids(300, network.config().vocab_size);
    const std::vector<float> whole = test::run_transformer(network, ids, {}, stream_);
    for (float logit : whole) ASSERT_TRUE(std::isfinite(logit));
    for (const int64_t slice_len : {1, 37, 128, 299}) {
      EXPECT_EQ(whole, test::run_transformer(network, ids, {.slice_len = slice_len}, stream_))
          << "slices of " << slice_len << " rows, " << name_of(dtype);
    }
    EXPECT_EQ(whole,
              test::run_transformer(network, ids, {.slice_len = 64, .decode_from = 100}, stream_))
        << "decode, " << name_of(dtype);
  }
}

TEST_P(TinyTransformer, ThreadsChangeNoBit) {
  const Transformer network = model(DType::kBF16);
  const std::vector<int32_t> ids = random_ids(200, network.config().vocab_size);
  const Stream alone = *Stream::create({}, 1);
  EXPECT_EQ(test::run_transformer(network, ids, {}, stream_),
            test::run_transformer(network, ids, {}, alone));
}

const auto kFamilies =
    ::testing::Values("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM");

INSTANTIATE_TEST_SUITE_P(Families, TinyTransformer, kFamilies);

// The same on every backend in the type that all of them take.
class Bfloat16Transformer
    : public ::testing::TestWithParam<std::tuple<test::Backend, const char*>> {};

// What is promised of every model against `transformers`: a cosine of at least 0.999.
constexpr double kAngleGapMax = 1e-3;

// 1 - cosine of a row's logits and the reference's.
double angle_gap(std::span<const float> ours, std::span<const double> expected) {
  double dot = 0.0, ours_squared = 0.0, expected_squared = 0.0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const auto value = static_cast<double>(ours[i]);
    dot += value * expected[i];
    ours_squared += value * value;
    expected_squared += expected[i] * expected[i];
  }
  return 1.0 - dot / std::sqrt(ours_squared * expected_squared);
}

TEST_P(Bfloat16Transformer, IsNearTheReferenceHoweverItIsCut) {
  const auto& [backend, architecture] = GetParam();
  const test::TempDir folder;
  test::write_tiny_model(folder.path(),
                         {.architecture = architecture,
                          .num_q_heads = 4,
                          .num_kv_heads = 2,
                          .tied_embeddings = architecture == std::string("Qwen2ForCausalLM"),
                          .seed = 11});
  const Stream stream = test::stream_of(backend);
  const Transformer network = make_model(folder.path(), folder.path(), DType::kBF16, stream);
  const auto vocab_size = static_cast<size_t>(network.config().vocab_size);
  const std::vector<int32_t> ids = random_ids(300, network.config().vocab_size);
  const std::vector<double> expected =
      reference::transformer_logits(network.config(), reference::load_weights(folder.path()), ids);
  for (const test::RunOptions& options : {test::RunOptions{}, test::RunOptions{.slice_len = 37},
                                          test::RunOptions{.slice_len = 64, .decode_from = 100}}) {
    const std::vector<float> ours = test::run_transformer(network, ids, options, stream);
    ASSERT_EQ(ours.size(), expected.size());
    double worst = 0.0;
    for (size_t at = 0; at < ours.size(); at += vocab_size) {
      const double gap = angle_gap({&ours[at], vocab_size}, {&expected[at], vocab_size});
      ASSERT_LT(gap, kAngleGapMax)
          << "row " << at / vocab_size << ", slices of " << options.slice_len;
      worst = std::max(worst, gap);
    }
    std::cout << "slices of " << options.slice_len << ": largest 1 - cosine " << worst << "\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Bfloat16Transformer,
                         ::testing::Combine(::testing::ValuesIn(test::backends()), kFamilies),
                         [](const auto& test) {
                           return std::get<0>(test.param).name + "_" + std::get<1>(test.param);
                         });

}  // namespace
}  // namespace pbserve::models
