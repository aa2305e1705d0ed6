// Text <-> token ids, from tokenizer.json (byte-level BPE) or tokenizer.model (SentencePiece).
// Immutable after loading; any thread may use it. StreamDecoder is its per-sequence cursor.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"
#include "models/text_span.h"

namespace pbserve::models {

struct EncodeOptions {
  bool add_special_tokens = true;    // what the post-processor adds (begin of text)
  bool parse_special_tokens = true;  // "<|im_end|>" in the text becomes its id
  // Parts of the text where it does not: no byte of a special token may stand in them. Added tokens
  // that are not special ("<think>") and the merges of words take no notice. In order and apart.
  std::span<const TextSpan> content = {};
};

// How the bytes of tokens become text; the two kinds of files differ.
struct DecodeRules {
  // Spaces dropped from the beginning of the text: those that encoding put there.
  size_t leading_spaces_dropped = 0;
  // A broken character of n bytes becomes n U+FFFD (SentencePiece) instead of one.
  bool replace_each_byte = false;
};

class Tokenizer {
 public:
  static constexpr size_t kTextBytesMax = size_t{256} << 20;  // of one encode()

  virtual ~Tokenizer() = default;

  // Reads <folder>/tokenizer.json, or <folder>/tokenizer.model where the former is absent or is
  // the latter's conversion (model.byte_fallback). tokenizer.json alone decides what is added
  // around a text; for tokenizer.model, tokenizer_config.json does (add_bos_token defaults to
  // true, add_eos_token to false, as transformers' LlamaTokenizer has it). Anything in the files
  // that would change the ids and is not implemented is refused by name.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> load(const std::string& folder);

  // REQUIRES nothing of `text`: invalid UTF-8 is kInvalidArgument with the byte offset, and so is
  // text beyond kTextBytesMax.
  virtual absl::StatusOr<std::vector<int32_t>> encode(std::string_view text,
                                                      EncodeOptions options) const = 0;

  // Bytes of one token; not always whole characters. Ids outside [0, vocab_size) give nothing.
  virtual std::string token_bytes(int32_t id) const = 0;

  // Added tokens marked special (begin, end, roles): skipped in output by default.
  virtual bool is_special(int32_t id) const = 0;

  // The id of an added token or vocabulary entry by its exact text.
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;

  // One more than the largest id.
  virtual int32_t vocab_size() const = 0;

  // Byte values that no token spells: encode() leaves them out, as the `tokenizers` package does.
  virtual int32_t num_dropped_bytes() const { return 0; }

  virtual DecodeRules decode_rules() const { return {}; }
  // Whether a leading space of this token is its own, never one that encoding put there.
  virtual bool keeps_leading_space(int32_t /*id*/) const { return true; }

  // The text of all ids; incomplete characters become U+FFFD.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

 protected:
  // What encode() asks of any text: valid UTF-8 within the limit.
  static absl::Status check_text(std::string_view text);
};

}  // namespace pbserve::models
