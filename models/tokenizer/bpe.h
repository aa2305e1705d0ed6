// Byte-pair encoding of one word: of all neighbours that form a merge, the one of lowest rank
// (leftmost among equals) is joined, until none is left. Immutable; Scratch belongs to a thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "models/tokenizer/token_map.h"

namespace pbserve::models {

class Bpe {
 public:
  struct Merge {
    int32_t left;
    int32_t right;
    int32_t merged;
  };
  struct Spec {
    TokenMap vocab;              // bytes of a token -> id
    std::vector<Merge> merges;   // by rank
    bool ignore_merges = false;  // a word that is a token stays whole, merges or not
    // What a byte without a token of its own becomes; without it the byte is dropped.
    std::optional<int32_t> unknown_id;
  };
  explicit Bpe(Spec spec);

  // Byte values that encode_word() drops: real vocabularies lack bytes that their training text
  // did not have.
  int32_t num_dropped_bytes() const;

  // A chain of what the word consists of so far; entry i stands for its i-th byte that has an id.
  struct Symbol {
    int32_t id;
    int32_t previous;  // -1 at the beginning
    int32_t next;      // -1 at the end
    uint32_t rank;     // of the merge with the next symbol
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<uint64_t> queue;  // heap of rank << 32 | position
    void release_if_large();
  };

  // Appends the ids of `word`. REQUIRES: word has fewer than 2^31 bytes.
  void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>* ids) const;

 private:
  struct RankedMerge {
    uint32_t rank;
    int32_t merged;
  };
  static constexpr uint32_t kNoMerge = 0xFFFFFFFF;
  static constexpr int32_t kDropped = -1;  // the id of a byte that has none
  static uint64_t pair_key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  RankedMerge find_merge(int32_t left, int32_t right) const;
  void merge_short(std::string_view word, std::vector<int32_t>* ids) const;
  void merge_long(std::string_view word, Scratch& scratch, std::vector<int32_t>* ids) const;
  void fill_symbols(std::string_view word, Scratch& scratch) const;

  std::array<int32_t, 256> byte_ids_{};
  absl::flat_hash_map<uint64_t, RankedMerge> merges_;
  TokenMap vocab_;  // empty unless merges are ignored
  size_t token_bytes_max_ = 0;
};

}  // namespace pbserve::models
