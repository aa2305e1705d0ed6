// A folder's weight files: one file, shards, and indexes that lie about them.
#include "models/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace pbserve::models {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string file_with(const std::string& tensor) {
  test::TensorFile file;
  file.add(tensor, "F32", {2}, {1, 2});
  return file.image();
}

void write_index(const test::TempDir& folder, const json& weight_map) {
  folder.write("model.safetensors.index.json", json{{"weight_map", weight_map}}.dump());
}

std::string error_of(const test::TempDir& folder) {
  return std::string(Checkpoint::open(folder.path()).status().message());
}

TEST(Checkpoint, ReadsOneFile) {
  const test::TempDir folder;
  folder.write("model.safetensors", file_with("a"));
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE(checkpoint->tensors().contains("a"));
}

TEST(Checkpoint, ReadsShards) {
  const test::TempDir folder;
  folder.write("one.safetensors", file_with("a"));
  folder.write("two.safetensors", file_with("b"));
  write_index(folder, {{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->tensors().size(), 2u);
}

TEST(Checkpoint, NamesWhatIsMissing) {
  const test::TempDir folder;
  EXPECT_EQ(Checkpoint::open(folder.path()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(error_of(folder), HasSubstr("/model.safetensors: open: No such file"));
  folder.write("one.safetensors", file_with("a"));
  write_index(folder, {{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  EXPECT_THAT(error_of(folder), HasSubstr("/two.safetensors: open: No such file"));
  write_index(folder, {{"a", "one.safetensors"}, {"b", "one.safetensors"}});
  EXPECT_THAT(error_of(folder), HasSubstr("tensor 'b' is not in one.safetensors"));
}

TEST(Checkpoint, RefusesATensorInTwoShards) {
  const test::TempDir folder;
  folder.write("one.safetensors", file_with("a"));
  folder.write("two.safetensors", file_with("a"));
  write_index(folder, {{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  EXPECT_THAT(error_of(folder), HasSubstr("/two.safetensors: tensor 'a' is in another shard too"));
}

TEST(Checkpoint, RefusesPathsThatLeaveTheFolder) {
  const test::TempDir folder;
  folder.write("one.safetensors", file_with("a"));
  for (const json& name :
       {json("../one.safetensors"), json("/etc/passwd.safetensors"), json("a/../../b.safetensors"),
        json("sub/one.safetensors"), json("..\\one.safetensors"), json("one.bin"), json(""),
        json(7), json(std::string("one\0.safetensors", 16))}) {
    write_index(folder, {{"a", name}});
    EXPECT_THAT(error_of(folder), HasSubstr("expected the name of a .safetensors file")) << name;
  }
}

TEST(Checkpoint, RefusesFilesThatAreNoFiles) {
  const test::TempDir folder;
  folder.write("model.safetensors", "");
  EXPECT_THAT(error_of(folder), HasSubstr("empty, or not a regular file"));
  const test::TempDir other;
  std::filesystem::create_directory(other.path() + "/model.safetensors");
  EXPECT_THAT(error_of(other), HasSubstr("empty, or not a regular file"));
}

TEST(Checkpoint, RefusesABrokenIndex) {
  const test::TempDir folder;
  folder.write("model.safetensors.index.json", "{");
  EXPECT_THAT(error_of(folder), HasSubstr("index.json: not valid JSON"));
  folder.write("model.safetensors.index.json", R"({"weight_map": []})");
  EXPECT_THAT(error_of(folder), HasSubstr("index.json: 'weight_map' is not an object"));
}

}  // namespace
}  // namespace pbserve::models
