// The safetensors header: what a good file says, and every lie a bad one can tell.
#include "models/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/support/tiny_model.h"

namespace pbserve::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<StoredTensors> parse(const std::string& image) {
  return parse_safetensors(std::as_bytes(std::span(image)), "x.safetensors");
}

// A file with this header (its length told truly) and `data_bytes` of zeros.
std::string image_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string image(sizeof(length), '\0');
  std::memcpy(image.data(), &length, sizeof(length));
  return image + header + std::string(data_bytes, '\0');
}

TEST(Safetensors, ReadsWhatIsThere) {
  test::TensorFile file;
  file.add("a", "F32", {2, 3}, {1, 2, 3, 4, 5, 6});
  file.add("b", "BF16", {2}, {7, 8});
  file.add("none", "F32", {0, 3}, {});
  file.add("scalar", "F32", {}, {9});
  const std::string image = file.image();
  const absl::StatusOr<StoredTensors> tensors = parse(image);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 4u);
  const StoredTensor& a = tensors->at("a");
  EXPECT_EQ(a.dtype, "F32");
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  float last = 0.0f;
  std::memcpy(&last, a.data + 5 * sizeof(float), sizeof(float));
  EXPECT_EQ(last, 6.0f);
  EXPECT_EQ(tensors->at("b").num_bytes, 4u);
  EXPECT_EQ(tensors->at("none").num_bytes, 0u);
}

TEST(Safetensors, MetadataIsNotATensor) {
  const auto tensors = parse(image_of(R"({"__metadata__": {"format": "pt"}})", 0));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(tensors->empty());
}

TEST(Safetensors, RefusesAHeaderLengthThatLies) {
  const std::string good = image_of("{}", 0);
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 31, uint64_t{1} << 63, ~uint64_t{0}}) {
    std::string image = good;
    std::memcpy(image.data(), &length, sizeof(length));
    EXPECT_THAT(parse(image).status().message(), HasSubstr("header of " + std::to_string(length)));
  }
  for (size_t size = 0; size < 8; ++size) {
    EXPECT_THAT(parse(good.substr(0, size)).status().message(), HasSubstr("shorter than"));
  }
}

TEST(Safetensors, EveryTruncationIsAnError) {
  test::TensorFile file;
  file.add("a", "F32", {2}, {1, 2});
  const std::string image = file.image();
  ASSERT_TRUE(parse(image).ok());
  for (size_t size = 0; size < image.size(); ++size) {
    EXPECT_FALSE(parse(image.substr(0, size)).ok()) << size;
  }
}

struct BadHeader {
  const char* header;
  const char* message;
  size_t data_bytes = 16;
};

class SafetensorsRefuses : public ::testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsRefuses, NamingFileAndTensor) {
  const absl::Status status = parse(image_of(GetParam().header, GetParam().data_bytes)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("x.safetensors: "));
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message)) << GetParam().header;
}

INSTANTIATE_TEST_SUITE_P(
    Headers, SafetensorsRefuses,
    ::testing::Values(
        BadHeader{"{", "not valid JSON"}, BadHeader{"[]", "the header is not a JSON object"},
        BadHeader{R"({"a": 1})", "tensor 'a': expected a JSON object"},
        BadHeader{R"({"a": {}})", "tensor 'a': 'shape' is not a list"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4]}})", "'data_offsets' is not a list"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}})", "do not lie"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], "x": 1}})",
                  "'x' is not known"},
        BadHeader{R"({"a": {"dtype": "F7", "shape": [4], "data_offsets": [0, 16]}})",
                  "unknown dtype 'F7'"},
        BadHeader{R"({"a": {"dtype": 1, "shape": [4], "data_offsets": [0, 16]}})", "'dtype' is 1"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}})",
                  "take 12 bytes, 'data_offsets' 16"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}})",
                  "'shape' is -4"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}})",
                  "'shape' is 4.0"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [1,1,1,1,4], "data_offsets": [0, 16]}})",
                  "'shape' is not a list of at most 4"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4611686018427387904, 4],
                      "data_offsets": [0, 16]}})",
                  "shape overflows"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}})", "is -16"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}})",
                  "do not lie"},
        BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}})",
                  "do not lie within the 16 bytes"},
        BadHeader{
            R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 9223372036854775808]}})",
            "'data_offsets' is 9223372036854775808"}));

INSTANTIATE_TEST_SUITE_P(
    Coverage, SafetensorsRefuses,
    ::testing::Values(BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                      "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
                                "'b' overlaps another tensor"},
                      BadHeader{R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                      "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
                                "overlaps another tensor"},
                      BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}})",
                                "hole before 'a'"},
                      BadHeader{R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}})",
                                "4 bytes belong to no tensor"},
                      BadHeader{R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                      "a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
                                "key 'a' appears twice"}));

}  // namespace
}  // namespace pbserve::models
