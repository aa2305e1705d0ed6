#include "models/tokenizer/sentencepiece_library.h"

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

}  // namespace

SentencePieceLibrary::SentencePieceLibrary()
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {}
SentencePieceLibrary::~SentencePieceLibrary() = default;
SentencePieceLibrary::SentencePieceLibrary(SentencePieceLibrary&&) noexcept = default;

std::string SentencePieceLibrary::load(std::string_view model) {
  return error_of([&] { return processor_->LoadFromSerializedProto(model); });
}

std::string SentencePieceLibrary::encode(std::string_view text, std::vector<int32_t>* ids) const {
  std::vector<int> encoded;
  std::string error = error_of([&] { return processor_->Encode(text, &encoded); });
  ids->insert(ids->end(), encoded.begin(), encoded.end());
  return error;
}

int32_t SentencePieceLibrary::num_pieces() const { return processor_->GetPieceSize(); }
std::string_view SentencePieceLibrary::piece(int32_t id) const { return processor_->IdToPiece(id); }
bool SentencePieceLibrary::is_control(int32_t id) const { return processor_->IsControl(id); }
bool SentencePieceLibrary::is_byte(int32_t id) const { return processor_->IsByte(id); }

int32_t SentencePieceLibrary::find(std::string_view piece) const {
  const int32_t id = processor_->PieceToId(piece);  // the unknown piece's id where there is none
  return processor_->IdToPiece(id) == piece ? id : -1;
}

int32_t SentencePieceLibrary::bos_id() const { return processor_->bos_id(); }
int32_t SentencePieceLibrary::eos_id() const { return processor_->eos_id(); }
int32_t SentencePieceLibrary::unknown_id() const { return processor_->unk_id(); }
std::string SentencePieceLibrary::unknown_text() const {
  return processor_->DecodeIds({processor_->unk_id()});
}

}  // namespace pbserve::models
