// The loadable module itself: nothing of the program is linked into it. What the library throws
// ends here.
#include "models/tokenizer/sentencepiece_module.h"

#include <sentencepiece_processor.h>

#include <exception>

namespace pbserve::models {
namespace {

template <class Call>
std::string error_of(const Call& call) {
  try {
    const sentencepiece::util::Status status = call();
    return status.ok() ? std::string() : status.ToString();
  } catch (const std::exception& error) {
    return error.what();
  }
}

class Module : public SentencePieceModule {
 public:
  std::string load(std::string_view model) override {
    return error_of([&] { return processor_.LoadFromSerializedProto(model); });
  }
  std::string encode(std::string_view text, std::vector<int32_t>* ids) const override {
    std::vector<int> encoded;
    std::string error = error_of([&] { return processor_.Encode(text, &encoded); });
    ids->insert(ids->end(), encoded.begin(), encoded.end());
    return error;
  }
  int32_t num_pieces() const override { return processor_.GetPieceSize(); }
  std::string_view piece(int32_t id) const override { return processor_.IdToPiece(id); }
  bool is_control(int32_t id) const override { return processor_.IsControl(id); }
  bool is_byte(int32_t id) const override { return processor_.IsByte(id); }
  int32_t find(std::string_view piece) const override {
    const int32_t id = processor_.PieceToId(piece);  // the unknown piece's id where there is none
    return processor_.IdToPiece(id) == piece ? id : -1;
  }
  int32_t bos_id() const override { return processor_.bos_id(); }
  int32_t eos_id() const override { return processor_.eos_id(); }
  int32_t unknown_id() const override { return processor_.unk_id(); }
  std::string unknown_text() const override { return processor_.DecodeIds({processor_.unk_id()}); }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace
}  // namespace pbserve::models

extern "C" __attribute__((visibility("default"))) pbserve::models::SentencePieceModule*
pbserve_sentencepiece() {
  return new pbserve::models::Module;
}
