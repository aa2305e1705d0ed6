// Ids and texts equal those of the `tokenizers` package, for three published tokenizer.json, one
// without tokens for some bytes, and all strings of the fixture.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "models/tokenizer/tokenizer.h"
#include "tests/models/tokenizer/tokenizer_fixtures.h"

namespace pbserve::test {
namespace {

using models::Tokenizer;

// Loaded once for all tests; nothing where the archive is not there.
const Tokenizer* published(const std::string& name) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> loaded;
  const auto [entry, inserted] = loaded.try_emplace(name);
  if (!inserted) return entry->second.get();
  const TempDir dir;
  std::optional<std::string> folder = std::string(PBSERVE_SOURCE_DIR) + "/models/demo";
  if (name == "gaps") folder = fixture_path("gaps");
  if (name != "demo" && name != "gaps") folder = unpack_tokenizer(name, dir);
  if (!folder) return nullptr;
  auto tokenizer = Tokenizer::load(*folder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  if (tokenizer.ok()) entry->second = *std::move(tokenizer);
  return entry->second.get();
}

class ByteLevelFixture : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    tokenizer_ = published(GetParam());
    if (tokenizer_ == nullptr && !HasFailure()) {
      GTEST_SKIP() << GetParam() << ".tar.xz is not in PBSERVE_TOKENIZERS";
    }
    ASSERT_NE(tokenizer_, nullptr);
    fixture_ = read_fixture(GetParam());
  }

  const Tokenizer* tokenizer_ = nullptr;
  TokenizerFixture fixture_;
};

TEST_P(ByteLevelFixture, IdsEqualThePackages) {
  const std::vector<std::string> strings = read_fixture_strings();
  ASSERT_GE(strings.size(), 2000u);
  ASSERT_EQ(strings.size(), fixture_.ids.size());
  size_t num_different = 0;
  for (size_t i = 0; i < strings.size(); ++i) {
    const auto ids = tokenizer_->encode(strings[i], {});
    ASSERT_TRUE(ids.ok()) << ids.status();
    const auto difference = fixture_.ids[i]->difference(*ids);
    if (!difference) continue;
    ++num_different;
    ADD_FAILURE() << "string " << i << " '" << strings[i].substr(0, 200) << "': " << *difference;
  }
  EXPECT_EQ(num_different, 0u);
}

TEST_P(ByteLevelFixture, SpecialTokensAreTextWhenNotParsed) {
  const std::vector<std::string> strings = read_fixture_strings();
  ASSERT_GE(fixture_.plain.size(), 100u);
  for (const auto& [index, expected] : fixture_.plain) {
    const auto ids = tokenizer_->encode(
        strings[index], {.add_special_tokens = false, .parse_special_tokens = false});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected) << strings[index];
  }
}

TEST_P(ByteLevelFixture, TextsEqualThePackages) {
  ASSERT_GE(fixture_.decoded.size(), 200u);
  for (const ExpectedText& expected : fixture_.decoded) {
    EXPECT_EQ(tokenizer_->decode(expected.ids, false), expected.all);
    EXPECT_EQ(tokenizer_->decode(expected.ids, true), *expected.skip);
  }
}

TEST_P(ByteLevelFixture, StepwiseDecodingGivesTheSameText) {
  for (const ExpectedText& expected : fixture_.decoded) {
    EXPECT_EQ(decode_in_steps(*tokenizer_, expected.ids, false), expected.all);
    EXPECT_EQ(decode_in_steps(*tokenizer_, expected.ids, true), *expected.skip);
  }
}

// Four threads, each with the strings in its own order: caches are warm in different ways.
TEST_P(ByteLevelFixture, ThreadsDoNotDisturbEachOther) {
  std::vector<std::string> strings = read_fixture_strings();
  std::erase_if(strings, [](const std::string& text) { return text.size() > 1000; });
  std::vector<std::vector<int32_t>> expected;
  for (const std::string& text : strings) expected.push_back(*tokenizer_->encode(text, {}));
  std::atomic<size_t> num_different = 0;
  std::vector<std::jthread> threads;
  for (size_t start : {0, 500, 1000, 1500}) {
    threads.emplace_back([&, start] {
      for (size_t i = 0; i < strings.size(); ++i) {
        const size_t at = (start + i) % strings.size();
        if (*tokenizer_->encode(strings[at], {}) != expected[at]) ++num_different;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(num_different, 0u);
}

INSTANTIATE_TEST_SUITE_P(Published, ByteLevelFixture,
                         testing::Values("demo", "gaps", "llama-3.1", "qwen3"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase_if(name, [](char c) { return !isalnum(c); });
                           return name;
                         });

}  // namespace
}  // namespace pbserve::test
