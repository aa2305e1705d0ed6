// Frequencies equal those of `transformers` (fixtures/make_fixtures.py) for every rope type, at the
// sizes of real models.
#include "models/rope_scaling.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/json_reader.h"

namespace pbserve::models {
namespace {

TEST(RopeScaling, EqualsTransformers) {
  const std::string path = PBSERVE_SOURCE_DIR "/tests/models/fixtures/rope_tables.json";
  const absl::StatusOr<std::string> text = read_file(path, 1 << 20);
  ASSERT_TRUE(text.ok()) << text.status();
  const absl::StatusOr<nlohmann::json> tables = parse_json(*text, path);
  ASSERT_TRUE(tables.ok()) << tables.status();
  ASSERT_GE(tables->size(), 8u);
  for (const nlohmann::json& expected : *tables) {
    const std::string name = expected.at("name");
    const auto config = parse_model_config(expected.at("config").dump(), "", name);
    ASSERT_TRUE(config.ok()) << config.status();
    const RopeTable table = make_rope_table(config->rope, config->head_dim);
    const auto inv_freq = expected.at("inv_freq").get<std::vector<float>>();
    ASSERT_EQ(table.inv_freq.size(), inv_freq.size()) << name;
    // Powers in float32 differ by a unit in the last place between libraries; the blends of llama3
    // and yarn carry that through a subtraction.
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      EXPECT_NEAR(table.inv_freq[i] / inv_freq[i], 1.0f, 5e-7f) << name << " pair " << i;
    }
    EXPECT_FLOAT_EQ(table.scale, expected.at("scale").get<float>()) << name;
  }
}

}  // namespace
}  // namespace pbserve::models
