// Any bytes, decoded one at a time: every piece is whole characters, and in sum they are what all
// bytes at once give.
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/core/check.h"
#include "models/tokenizer/stream_decoder.h"
#include "models/tokenizer/utf8.h"

namespace {

// Ids 0-255 are bytes; 256 is the whole input.
class ByteTokenizer : public pbserve::models::Tokenizer {
 public:
  explicit ByteTokenizer(std::string_view input) : input_(input) {}
  absl::StatusOr<std::vector<int32_t>> encode(std::string_view,
                                              pbserve::models::EncodeOptions) const override {
    return std::vector<int32_t>();
  }
  std::string token_bytes(int32_t id) const override {
    return id == 256 ? std::string(input_) : std::string(1, static_cast<char>(id));
  }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
  int32_t vocab_size() const override { return 257; }

 private:
  std::string_view input_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteTokenizer tokenizer(std::string_view(reinterpret_cast<const char*>(data), size));
  pbserve::models::StreamDecoder decoder(tokenizer, true);
  std::string text;
  for (size_t i = 0; i <= size; ++i) {
    const std::string piece = i < size ? decoder.push(data[i]) : decoder.finish();
    pbserve::check(pbserve::models::find_invalid_utf8(piece) == piece.npos, "half a character");
    text += piece;
  }
  pbserve::check(text == tokenizer.decode(std::vector<int32_t>{256}, true), "texts differ");
  return 0;
}
