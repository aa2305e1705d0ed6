// The SentencePiece library behind standard types. Its header declares absl::string_view a second
// time, so that it cannot meet Abseil's in one file; and what it throws ends here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace pbserve::models {

class SentencePieceLibrary {
 public:
  SentencePieceLibrary();
  ~SentencePieceLibrary();
  SentencePieceLibrary(SentencePieceLibrary&&) noexcept;

  // Both return what went wrong; empty: nothing.
  std::string load(std::string_view model);
  std::string encode(std::string_view text, std::vector<int32_t>* ids) const;  // appends

  int32_t num_pieces() const;
  std::string_view piece(int32_t id) const;
  bool is_control(int32_t id) const;
  bool is_byte(int32_t id) const;
  // -1 where the model has none.
  int32_t find(std::string_view piece) const;
  int32_t bos_id() const;
  int32_t eos_id() const;
  int32_t unknown_id() const;
  std::string unknown_text() const;  // what decoding makes of an unknown piece

 private:
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace pbserve::models
