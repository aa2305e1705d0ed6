// Loading: values arrive converted and in their places, and nothing is missing, surplus or
// misshapen.
#include "models/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "models/checkpoint.h"
#include "models/weight_source.h"
#include "tests/support/backends.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace pbserve::models {
namespace {

using kernels::BF16;
using kernels::DType;
using kernels::Stream;
using kernels::Tensor;
using test::TensorFile;
using test::TinyModelOptions;
using ::testing::HasSubstr;

Stream cpu_stream() { return *Stream::create({}, 2); }

ModelConfig config_of(const TinyModelOptions& options) {
  return *parse_model_config(test::tiny_config(options).dump(), "", "config.json");
}

// Loads the tiny model with its weights changed by `edit`.
absl::StatusOr<WeightStore> load(const TinyModelOptions& options, DType dtype,
                                 const std::function<void(TensorFile&)>& edit) {
  const test::TempDir folder;
  TensorFile file = test::tiny_weights(options);
  edit(file);
  folder.write("model.safetensors", file.image());
  return WeightStore::load(folder.path(), config_of(options), dtype, cpu_stream());
}

// The rows of a packed matrix, read back through the only operation that can.
std::vector<float> rows_of(const kernels::LinearWeight& weight) {
  const int64_t depth = weight.num_in;
  std::vector<float> identity(static_cast<size_t>(depth * depth));
  std::vector<float> columns(static_cast<size_t>(depth * weight.num_out));
  for (int64_t i = 0; i < depth; ++i) identity[static_cast<size_t>(i * depth + i)] = 1.0f;
  kernels::linear({.y = Tensor(columns.data(), DType::kF32, {depth, weight.num_out}),
                   .x = Tensor(identity.data(), DType::kF32, {depth, depth}),
                   .weight = weight,
                   .bias = {}},
                  cpu_stream());
  std::vector<float> rows(columns.size());
  for (int64_t n = 0; n < weight.num_out; ++n) {
    for (int64_t k = 0; k < depth; ++k) {
      rows[static_cast<size_t>(n * depth + k)] =
          columns[static_cast<size_t>(k * weight.num_out + n)];
    }
  }
  return rows;
}

std::vector<float> stored(const TensorFile& file, const std::string& name) {
  const std::string& bytes = file.tensors.at(name).bytes;
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<float> concat(std::initializer_list<std::vector<float>> parts) {
  std::vector<float> all;
  for (const std::vector<float>& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST(Weights, PartsOfFusedMatricesLandInOrder) {
  const TinyModelOptions options{.architecture = "Qwen2ForCausalLM", .dtype = "F32"};
  const TensorFile file = test::tiny_weights(options);
  const auto store = load(options, DType::kF32, [](TensorFile&) {});
  ASSERT_TRUE(store.ok()) << store.status();
  const LayerWeights& layer = store->layers[1];
  const auto part = [&](const std::string& name) { return stored(file, "model.layers.1." + name); };
  EXPECT_EQ(rows_of(layer.qkv),
            concat({part("self_attn.q_proj.weight"), part("self_attn.k_proj.weight"),
                    part("self_attn.v_proj.weight")}));
  const std::vector<float> bias =
      concat({part("self_attn.q_proj.bias"), part("self_attn.k_proj.bias"),
              part("self_attn.v_proj.bias")});
  ASSERT_EQ(layer.qkv_bias.numel(), static_cast<int64_t>(bias.size()));
  EXPECT_TRUE(std::equal(bias.begin(), bias.end(), layer.qkv_bias.as<float>()));
  EXPECT_EQ(rows_of(layer.gate_up),
            concat({part("mlp.gate_proj.weight"), part("mlp.up_proj.weight")}));
  EXPECT_EQ(rows_of(layer.out), part("self_attn.o_proj.weight"));
  EXPECT_EQ(rows_of(layer.down), part("mlp.down_proj.weight"));
  EXPECT_EQ(rows_of(store->lm_head), stored(file, "lm_head.weight"));
}

TEST(Weights, TiedEmbeddingsServeAsTheHead) {
  const TinyModelOptions options{.tied_embeddings = true, .dtype = "F32"};
  const TensorFile file = test::tiny_weights(options);
  const auto store = load(options, DType::kF32, [](TensorFile&) {});
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(rows_of(store->lm_head), stored(file, "model.embed_tokens.weight"));
}

size_t measure(bool tied_embeddings, kernels::DeviceKind kind) {
  const ModelConfig config = config_of({.tied_embeddings = tied_embeddings});
  return WeightStore::measure(config, DType::kBF16, {.kind = kind});
}

// A GPU reads the head from the embedding, row-major as it lies; the CPU from panels of its own.
TEST(Weights, TiedEmbeddingsAreCountedOnceOnAGpu) {
  constexpr size_t kEmbeddingBytes = test::kTinyVocabSize * 64 * 2;
  using kernels::DeviceKind;
  EXPECT_EQ(measure(true, DeviceKind::kCuda) + kEmbeddingBytes, measure(false, DeviceKind::kCuda));
  EXPECT_EQ(measure(true, DeviceKind::kCpu), measure(false, DeviceKind::kCpu));
}

class WeightsOnBackend : public ::testing::TestWithParam<test::Backend> {};
INSTANTIATE_TEST_SUITE_P(Backends, WeightsOnBackend, ::testing::ValuesIn(test::backends()),
                         test::backend_name);

TEST_P(WeightsOnBackend, TheHeadIsTheTiedEmbeddingWhereItLiesAsPacked) {
  const Stream stream = test::stream_of(GetParam());
  for (const bool tied : {false, true}) {
    const ModelConfig config = config_of({.tied_embeddings = tied});
    const auto store = WeightStore::dummy(config, DType::kBF16, 1, stream);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ(store->num_bytes(), WeightStore::measure(config, DType::kBF16, stream.device()));
    EXPECT_EQ(store->lm_head.packed.data == store->embedding.data,
              tied && kernels::packed_is_row_major(stream.device()));
    EXPECT_EQ(store->lm_head.packed.numel(),
              kernels::packed_weight_numel(stream.device(), config.vocab_size, config.hidden_size));
  }
}

TEST(Weights, EveryStoredTypeConvertsToEveryDType) {
  // Values with these bits: 1.5, -2.75, 1/3 rounded to the stored type.
  const std::vector<uint16_t> halves = {0x3e00, 0xc180, 0x3555};
  const std::vector<float> half_values = {1.5f, -2.75f, 0.333251953125f};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TensorFile file;
    file.add("f32", "F32", {3}, {1.5f, -2.75f, 1.0f / 3.0f});
    file.add("bf16", "BF16", {3}, {1.5f, -2.75f, 1.0f / 3.0f});
    const std::string bytes(reinterpret_cast<const char*>(halves.data()), 6);
    file.tensors["f16"] = {.dtype = "F16", .shape = {3}, .bytes = bytes};
    const test::TempDir folder;
    folder.write("model.safetensors", file.image());
    const CheckpointSource source(*Checkpoint::open(folder.path()), {.tied_embeddings = false});
    const auto read = [&](const char* name, int64_t i) {
      float value = 0.0f;
      BF16 rounded{};
      source.read(name, i, 1, dtype, dtype == DType::kF32 ? static_cast<void*>(&value) : &rounded);
      return dtype == DType::kF32 ? value : kernels::to_f32(rounded);
    };
    for (int64_t i = 0; i < 3; ++i) {
      const float exact = i == 2 ? 1.0f / 3.0f : half_values[static_cast<size_t>(i)];
      const float short_value = kernels::to_f32(kernels::from_f32<BF16>(exact));
      const float half = half_values[static_cast<size_t>(i)];
      EXPECT_EQ(read("f32", i), dtype == DType::kF32 ? exact : short_value);
      EXPECT_EQ(read("bf16", i), short_value);
      EXPECT_EQ(read("f16", i),
                dtype == DType::kF32 ? half : kernels::to_f32(kernels::from_f32<BF16>(half)));
    }
  }
}

struct BadWeights {
  const char* name;
  std::function<void(TensorFile&)> edit;
  const char* message;
  bool tied_embeddings = false;
};

class WeightsRefuse : public ::testing::TestWithParam<BadWeights> {};

TEST_P(WeightsRefuse, ByName) {
  const TinyModelOptions options{.tied_embeddings = GetParam().tied_embeddings, .dtype = "F32"};
  const auto store = load(options, DType::kBF16, GetParam().edit);
  ASSERT_FALSE(store.ok());
  EXPECT_THAT(store.status().message(), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Files, WeightsRefuse,
    ::testing::Values(
        BadWeights{"Missing",
                   [](TensorFile& f) { f.tensors.erase("model.layers.1.mlp.up_proj.weight"); },
                   "tensor 'model.layers.1.mlp.up_proj.weight' is missing"},
        BadWeights{"NoHead", [](TensorFile& f) { f.tensors.erase("lm_head.weight"); },
                   "tensor 'lm_head.weight' is missing"},
        BadWeights{"Surplus", [](TensorFile& f) { f.add("extra.weight", "F32", {1}, {0}); },
                   "tensor 'extra.weight' has no place in this model"},
        BadWeights{
            "SurplusLayer",
            [](TensorFile& f) { f.add("model.layers.2.input_layernorm.weight", "F32", {1}, {0}); },
            "'model.layers.2.input_layernorm.weight' has no place"},
        BadWeights{
            "Bias",
            [](TensorFile& f) { f.add("model.layers.0.self_attn.q_proj.bias", "F32", {1}, {0}); },
            "'model.layers.0.self_attn.q_proj.bias' has no place"},
        BadWeights{"Shape",
                   [](TensorFile& f) {
                     f.tensors.at("lm_head.weight").shape = {64, 264};
                   },
                   "'lm_head.weight' has shape [64, 264], expected [264, 64]"},
        BadWeights{"Rank",
                   [](TensorFile& f) {
                     f.tensors.at("model.norm.weight").shape = {1, 64};
                   },
                   "'model.norm.weight' has shape [1, 64], expected [64]"},
        BadWeights{"DType", [](TensorFile& f) { f.tensors.at("model.norm.weight").dtype = "I32"; },
                   "'model.norm.weight' is I32, expected BF16, F16 or F32"},
        BadWeights{"UntiedHead",
                   [](TensorFile& f) {
                     f.add("lm_head.weight", "F32", {264, 64}, std::vector<float>(264 * 64, 1.0f));
                   },
                   "differs from the embedding although config.json ties them", true}),
    [](const auto& test) { return test.param.name; });

TEST(Weights, HarmlessSurplusIsAccepted) {
  const TinyModelOptions options{.tied_embeddings = true};
  const auto store = load(options, DType::kBF16, [](TensorFile& file) {
    file.add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, {1});
    file.tensors["lm_head.weight"] = file.tensors.at("model.embed_tokens.weight");
  });
  EXPECT_TRUE(store.ok()) << store.status();
}

TEST(Weights, DummyValuesDependOnSeedNameAndPlaceAlone) {
  const ModelConfig config = config_of({.architecture = "Qwen3ForCausalLM"});
  const auto make = [&](uint64_t seed, int threads) {
    return *WeightStore::dummy(config, DType::kF32, seed, *Stream::create({}, threads));
  };
  const WeightStore store = make(1, 1);
  const std::vector<float> values = rows_of(store.layers[0].qkv);
  EXPECT_EQ(values, rows_of(make(1, 2).layers[0].qkv));
  EXPECT_NE(values, rows_of(make(2, 1).layers[0].qkv));
  EXPECT_NE(values, rows_of(store.layers[1].qkv));
  EXPECT_EQ(store.layers[0].attn_norm.as<float>()[5], 1.0f);
  EXPECT_EQ(store.layers[0].q_norm.as<float>()[5], 1.0f);

  double sum = 0.0, squares = 0.0;
  for (float value : values) {
    sum += value;
    squares += value * value;
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0.0, 0.001);
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.001);
}

}  // namespace
}  // namespace pbserve::models
