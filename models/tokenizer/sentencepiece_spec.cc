#include "models/tokenizer/sentencepiece_spec.h"

#include <cstdint>
#include <optional>

#include "models/message.h"

namespace pbserve::models {
namespace {

// Walks the fields of one protobuf message (the wire format of protobuf.dev/encoding).
class FieldReader {
 public:
  struct Field {
    uint64_t number = 0;
    uint64_t value = 0;           // of a varint
    std::string_view bytes = {};  // of a length-delimited field
  };

  explicit FieldReader(std::string_view bytes) : rest_(bytes) {}

  // The next field; nothing at the end and after an error.
  std::optional<Field> next() {
    if (rest_.empty() || !ok_) return std::nullopt;
    const uint64_t key = varint();
    Field field{.number = key >> 3};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        ok_ = false;
    }
    return ok_ ? std::optional(field) : std::nullopt;
  }

  bool ok() const { return ok_; }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) break;
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
  bool ok_ = true;
};

bool read_trainer(std::string_view bytes, SentencePieceSpec* spec) {
  constexpr uint64_t kModelType = 3;
  constexpr uint64_t kModelTypeBpe = 2;
  constexpr uint64_t kTreatWhitespaceAsSuffix = 24;
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == kModelType) spec->is_bpe = field->value == kModelTypeBpe;
    if (field->number == kTreatWhitespaceAsSuffix) {
      spec->treat_whitespace_as_suffix = field->value != 0;
    }
  }
  return reader.ok();
}

constexpr uint64_t kPrecompiledCharsmap = 2;

bool read_normalizer(std::string_view bytes, SentencePieceSpec* spec) {
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == kPrecompiledCharsmap) spec->has_charsmap = !field->bytes.empty();
    if (field->number == 3) spec->add_dummy_prefix = field->value != 0;
    if (field->number == 4) spec->remove_extra_whitespaces = field->value != 0;
    if (field->number == 5) spec->escape_whitespaces = field->value != 0;
  }
  return reader.ok();
}

bool read_denormalizer(std::string_view bytes, SentencePieceSpec* spec) {
  FieldReader reader(bytes);
  while (const auto field = reader.next()) {
    if (field->number == kPrecompiledCharsmap) spec->has_denormalizer = !field->bytes.empty();
  }
  return reader.ok();
}

}  // namespace

absl::StatusOr<SentencePieceSpec> read_sentencepiece_spec(std::string_view model) {
  constexpr uint64_t kTrainerSpec = 2;
  constexpr uint64_t kNormalizerSpec = 3;
  constexpr uint64_t kDenormalizerSpec = 5;
  SentencePieceSpec spec;
  bool ok = true;
  FieldReader reader(model);
  while (const auto field = reader.next()) {
    if (field->number == kTrainerSpec) ok = ok && read_trainer(field->bytes, &spec);
    if (field->number == kNormalizerSpec) ok = ok && read_normalizer(field->bytes, &spec);
    if (field->number == kDenormalizerSpec) ok = ok && read_denormalizer(field->bytes, &spec);
  }
  if (!ok || !reader.ok()) return invalid("not a SentencePiece model");
  return spec;
}

}  // namespace pbserve::models
