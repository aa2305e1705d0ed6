// dump_logits as parity.py runs it: on models whose logits `transformers` has computed.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/support/expected_tensors.h"
#include "tests/support/temp_dir.h"

namespace pbserve::test {
namespace {

class DumpLogits : public ::testing::TestWithParam<const char*> {
 protected:
  // Returns the exit code of dump_logits, given ids as it wants them.
  int run(const std::string& arguments, const std::vector<int32_t>& ids,
          const std::string& out = "logits") const {
    folder_.write("ids", {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)});
    const std::string folder = folder_.path() + "/";
    const std::string command = std::string(PBSERVE_DUMP_LOGITS) + " --model " + model_ +
                                " --ids " + folder + "ids --out " + folder + out + " --threads 2 " +
                                arguments + " 2> " + folder + "errors";
    return WEXITSTATUS(std::system(command.c_str()));
  }

  std::string text(const std::string& name) const {
    std::ifstream file(folder_.path() + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::vector<float> logits() const {
    const std::string bytes = text("logits");
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  const std::string model_ = std::string(PBSERVE_SOURCE_DIR "/tests/models/fixtures/") + GetParam();
  const ExpectedTensors expected_{model_ + "/expected.safetensors"};
  const std::vector<int32_t> ids_ = expected_.get<int32_t>("ids");
  const TempDir folder_;
};

constexpr const char* kFloat32 = "--device cpu --dtype float32 ";

TEST_P(DumpLogits, EqualTransformersThroughPrefillAndDecode) {
  ASSERT_EQ(run(std::string(kFloat32) + "--slice 37 --decode-from 120", ids_), 0) << text("errors");
  const std::vector<float> ours = logits();
  const auto rows = expected_.get<int32_t>("rows");
  const auto expected = expected_.get<float>("logits");
  const size_t vocab_size = expected.size() / rows.size();
  ASSERT_EQ(ours.size(), ids_.size() * vocab_size);
  for (size_t i = 0; i < expected.size(); ++i) {
    const size_t at = static_cast<size_t>(rows[i / vocab_size]) * vocab_size + i % vocab_size;
    ASSERT_NEAR(ours[at], expected[i], 1e-4f) << "row " << rows[i / vocab_size];
  }
}

TEST_P(DumpLogits, KeepsEveryNthRowAndAllDecodedRows) {
  ASSERT_EQ(run(std::string(kFloat32) + "--slice 50", ids_), 0) << text("errors");
  const std::vector<float> all = logits();
  ASSERT_EQ(run(std::string(kFloat32) + "--slice 50 --decode-from 190 --every 64", ids_), 0);
  const auto vocab_size = static_cast<std::ptrdiff_t>(all.size() / ids_.size());
  std::vector<float> kept;
  for (std::ptrdiff_t t : {0, 64, 128, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199}) {
    kept.insert(kept.end(), all.begin() + t * vocab_size, all.begin() + (t + 1) * vocab_size);
  }
  EXPECT_EQ(logits(), kept);
}

TEST_P(DumpLogits, RefusesWhatTheModelCannotTake) {
  EXPECT_EQ(run(kFloat32, {1, 2, 1 << 20}), 1);
  EXPECT_NE(text("errors").find("id 1048576 is outside the vocabulary"), std::string::npos);
  EXPECT_EQ(run(kFloat32, std::vector<int32_t>(1000, 1)), 1);
  EXPECT_NE(text("errors").find("1000 ids, the model takes 512"), std::string::npos);
  EXPECT_EQ(run(kFloat32, {}), 1);
  EXPECT_NE(text("errors").find("not a file of int32 values"), std::string::npos);
  EXPECT_EQ(run(kFloat32, ids_, "nowhere/logits"), 1);
  EXPECT_NE(text("errors").find("nowhere/logits: cannot be written"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, DumpLogits, ::testing::Values("llama", "qwen2", "qwen3"));

}  // namespace
}  // namespace pbserve::test
