// A shape that a device's kernels lack ends the start with the name of its field, before a kernel
// meets it.
#include "models/device_support.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace pbserve::models {
namespace {

using kernels::DeviceKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

ModelConfig config_of(const test::TinyModelOptions& options) {
  const auto config = parse_model_config(test::tiny_config(options).dump(), "", "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(ModelConfig{});
}

std::string refusal(const test::TinyModelOptions& options, DeviceKind device) {
  return std::string(check_device_support(config_of(options), device).message());
}

TEST(DeviceSupport, HeadSizesOfTheGpu) {
  for (const int64_t head_dim : {64, 128}) {
    EXPECT_EQ(refusal({.head_dim = head_dim}, DeviceKind::kCuda), "") << head_dim;
  }
  for (const int64_t head_dim : {80, 96, 112, 160, 256}) {
    EXPECT_THAT(refusal({.head_dim = head_dim}, DeviceKind::kCuda),
                HasSubstr("config.json: head_dim is " + std::to_string(head_dim)));
    EXPECT_EQ(refusal({.head_dim = head_dim}, DeviceKind::kCpu), "") << head_dim;
  }
}

TEST(DeviceSupport, ProductsWithABiasNeedWholeVectors) {
  const test::TinyModelOptions odd{.architecture = "Qwen2ForCausalLM", .hidden_size = 100};
  EXPECT_THAT(refusal(odd, DeviceKind::kCuda),
              AllOf(HasSubstr("config.json: hidden_size is 100"), HasSubstr("multiples of 8")));
  EXPECT_EQ(refusal(odd, DeviceKind::kCpu), "");
  EXPECT_EQ(refusal({.architecture = "Qwen2ForCausalLM", .hidden_size = 104}, DeviceKind::kCuda),
            "");
  EXPECT_EQ(refusal({.hidden_size = 100}, DeviceKind::kCuda), "");  // no bias
}

// Shapes that no device takes are refused as the file is read.
TEST(DeviceSupport, HeadSizesOfNoDevice) {
  for (const int64_t head_dim : {32, 72, 272}) {
    const auto config =
        parse_model_config(test::tiny_config({.head_dim = head_dim}).dump(), "", "config.json");
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("head_dim")) << head_dim;
  }
}

}  // namespace
}  // namespace pbserve::models
