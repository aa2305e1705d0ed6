// One id at a time: never half a character, and in sum the same text as all at once.
#include "models/tokenizer/stream_decoder.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>

namespace pbserve::test {
namespace {

using models::DecodeRules;
using models::StreamDecoder;
using models::Tokenizer;

// A tokenizer of hand-written tokens; 9 is special, 5 and above keep their leading space.
class HandTokenizer : public Tokenizer {
 public:
  explicit HandTokenizer(DecodeRules rules) : rules_(rules) {}

  absl::StatusOr<std::vector<int32_t>> encode(std::string_view,
                                              models::EncodeOptions) const override {
    return absl::UnimplementedError("");
  }
  std::string token_bytes(int32_t id) const override {
    const auto found = tokens_.find(id);
    return found == tokens_.end() ? std::string() : found->second;
  }
  bool is_special(int32_t id) const override { return id == 9; }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
  int32_t vocab_size() const override { return 10; }
  DecodeRules decode_rules() const override { return rules_; }
  bool keeps_leading_space(int32_t id) const override { return id >= 5; }

 private:
  DecodeRules rules_;
  std::map<int32_t, std::string> tokens_ = {{0, " a"},   {1, "\xF0\x9F"}, {2, "\x98\x80"},
                                            {3, "\xE2"}, {4, " "},        {5, " b"},
                                            {6, "xy"},   {9, "<end>"}};
};

TEST(StreamDecoder, HoldsBackAnIncompleteCharacter) {
  const HandTokenizer tokenizer({});
  StreamDecoder decoder(tokenizer, true);
  EXPECT_EQ(decoder.push(6), "xy");
  EXPECT_EQ(decoder.push(1), "");
  EXPECT_EQ(decoder.push(2), "\U0001F600");
  EXPECT_EQ(decoder.push(3), "");
  EXPECT_EQ(decoder.push(9), "");
  EXPECT_EQ(decoder.push(6), "\uFFFDxy");
  EXPECT_EQ(decoder.push(2), "\uFFFD\uFFFD");
  EXPECT_EQ(decoder.push(1), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(StreamDecoder, SpecialTokensAreShownOnRequest) {
  const HandTokenizer tokenizer({});
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{6, 9, 6}, false), "xy<end>xy");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{6, 9, 6}, true), "xyxy");
}

TEST(StreamDecoder, IdsOutsideTheVocabularyGiveNothing) {
  const HandTokenizer tokenizer({});
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{-1, 6, 10, 1 << 30}, true), "xy");
}

TEST(StreamDecoder, DropsTheSpacesThatEncodingPutInFront) {
  const HandTokenizer one({.leading_spaces_dropped = 1});
  EXPECT_EQ(one.decode(std::vector<int32_t>{0, 0}, true), "a a");
  EXPECT_EQ(one.decode(std::vector<int32_t>{9, 0}, true), "a");
  EXPECT_EQ(one.decode(std::vector<int32_t>{4, 0}, true), " a");
  EXPECT_EQ(one.decode(std::vector<int32_t>{6, 0}, true), "xy a");
  EXPECT_EQ(one.decode(std::vector<int32_t>{5, 0}, true), " b a");
  const HandTokenizer all({.leading_spaces_dropped = std::numeric_limits<size_t>::max()});
  EXPECT_EQ(all.decode(std::vector<int32_t>{4, 4, 0, 0}, true), "a a");
}

TEST(StreamDecoder, ReplacesEachByteOnRequest) {
  const HandTokenizer tokenizer({.replace_each_byte = true});
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 6, 1}, true), "\uFFFD\uFFFDxy\uFFFD\uFFFD");
}

}  // namespace
}  // namespace pbserve::test
