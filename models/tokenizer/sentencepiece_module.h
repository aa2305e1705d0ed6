// The boundary of the SentencePiece library: standard types and virtual calls only.
//
// Debian's libsentencepiece exports a Protobuf of its own, of another version than the one gRPC
// uses: linked into one program they take each other's functions and crash before main. So the
// library lives behind this interface in a module that is loaded, when a model needs it, into a
// symbol scope of its own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pbserve::models {

class SentencePieceModule {
 public:
  virtual ~SentencePieceModule() = default;

  // Both return what went wrong; empty: nothing.
  virtual std::string load(std::string_view model) = 0;
  virtual std::string encode(std::string_view text,
                             std::vector<int32_t>* ids) const = 0;  // appends

  virtual int32_t num_pieces() const = 0;
  virtual std::string_view piece(int32_t id) const = 0;
  virtual bool is_control(int32_t id) const = 0;
  virtual bool is_byte(int32_t id) const = 0;
  virtual int32_t find(std::string_view piece) const = 0;  // -1 where the model has none
  virtual int32_t bos_id() const = 0;
  virtual int32_t eos_id() const = 0;
  virtual int32_t unknown_id() const = 0;
  virtual std::string unknown_text() const = 0;  // what decoding makes of an unknown piece
};

// The module's one export: `SentencePieceModule* pbserve_sentencepiece()`, owned by the caller.
inline constexpr char kSentencePieceEntry[] = "pbserve_sentencepiece";
using SentencePieceEntry = SentencePieceModule*();

}  // namespace pbserve::models
