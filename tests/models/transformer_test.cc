// The network against `transformers` (fixtures), against the reference in double, and against
// itself: slices, decode and company change no bit.
#include "models/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "tests/reference/transformer_ref.h"
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

INSTANTIATE_TEST_SUITE_P(Families, TinyTransformer,
                         ::testing::Values("LlamaForCausalLM", "Qwen2ForCausalLM",
                                           "Qwen3ForCausalLM"));

}  // namespace
}  // namespace pbserve::models
