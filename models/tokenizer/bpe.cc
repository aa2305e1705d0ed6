#include "models/tokenizer/bpe.h"

#include <algorithm>
#include <functional>

namespace pbserve::models {
namespace {

// Up to here the whole word fits in two cache lines' worth of arrays and scanning all pairs for
// the least rank beats keeping a heap.
constexpr size_t kShortWord = 32;

constexpr size_t kKeptSymbols = 64 * 1024;  // scratch that is kept between texts

}  // namespace

void Bpe::Scratch::release_if_large() {
  if (symbols.capacity() <= kKeptSymbols && queue.capacity() <= kKeptSymbols) return;
  symbols = {};
  queue = {};
}

Bpe::Bpe(Spec spec) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const auto found = spec.vocab.find(std::string(1, static_cast<char>(byte)));
    byte_ids_[byte] =
        found == spec.vocab.end() ? spec.unknown_id.value_or(kDropped) : found->second;
  }
  merges_.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const Merge& merge = spec.merges[rank];
    // A pair that is listed twice has the later rank, as in the `tokenizers` package.
    merges_[pair_key(merge.left, merge.right)] = {static_cast<uint32_t>(rank), merge.merged};
  }
  if (spec.ignore_merges) {
    vocab_ = std::move(spec.vocab);
    for (const auto& [bytes, id] : vocab_) {
      token_bytes_max_ = std::max(token_bytes_max_, bytes.size());
    }
  }
}

int32_t Bpe::num_dropped_bytes() const {
  return static_cast<int32_t>(std::ranges::count(byte_ids_, kDropped));
}

Bpe::RankedMerge Bpe::find_merge(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? RankedMerge{kNoMerge, -1} : found->second;
}

void Bpe::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>* ids) const {
  if (word.size() <= token_bytes_max_) {
    if (const auto whole = vocab_.find(word); whole != vocab_.end()) {
      ids->push_back(whole->second);
      return;
    }
  }
  if (word.size() <= kShortWord) return merge_short(word, ids);
  merge_long(word, scratch, ids);
}

void Bpe::merge_short(std::string_view word, std::vector<int32_t>* ids) const {
  std::array<int32_t, kShortWord> symbols;
  std::array<RankedMerge, kShortWord> merges;  // merges[i] joins symbols i and i + 1
  size_t size = 0;
  for (const char byte : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id != kDropped) symbols[size++] = id;  // so that its neighbours may merge
  }
  for (size_t i = 0; i + 1 < size; ++i) merges[i] = find_merge(symbols[i], symbols[i + 1]);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoMerge) break;
    symbols[best] = merges[best].merged;
    --size;
    for (size_t i = best + 1; i < size; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best; i + 1 < size; ++i) merges[i] = merges[i + 1];
    if (best + 1 < size) merges[best] = find_merge(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = find_merge(symbols[best - 1], symbols[best]);
  }
  ids->insert(ids->end(), symbols.begin(), symbols.begin() + static_cast<ptrdiff_t>(size));
}

void Bpe::fill_symbols(std::string_view word, Scratch& scratch) const {
  scratch.symbols.clear();
  scratch.queue.clear();
  for (const char byte : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
    if (id == kDropped) continue;
    const auto i = static_cast<int32_t>(scratch.symbols.size());
    scratch.symbols.push_back({id, i - 1, i + 1, kNoMerge});
  }
  if (scratch.symbols.empty()) return;
  scratch.symbols.back().next = -1;
  Symbol* symbols = scratch.symbols.data();
  const auto size = static_cast<int32_t>(scratch.symbols.size());
  for (int32_t i = 0; i + 1 < size; ++i) {
    const uint32_t rank = find_merge(symbols[i].id, symbols[i + 1].id).rank;
    symbols[i].rank = rank;
    if (rank != kNoMerge) scratch.queue.push_back(uint64_t{rank} << 32 | static_cast<uint32_t>(i));
  }
  std::make_heap(scratch.queue.begin(), scratch.queue.end(), std::greater<>());
}

void Bpe::merge_long(std::string_view word, Scratch& scratch, std::vector<int32_t>* ids) const {
  fill_symbols(word, scratch);
  if (scratch.symbols.empty()) return;
  Symbol* symbols = scratch.symbols.data();
  auto& queue = scratch.queue;
  const auto update_pair = [&](int32_t position) {
    Symbol& symbol = symbols[position];
    symbol.rank = symbol.next < 0 ? kNoMerge : find_merge(symbol.id, symbols[symbol.next].id).rank;
    if (symbol.rank == kNoMerge) return;
    queue.push_back(uint64_t{symbol.rank} << 32 | static_cast<uint32_t>(position));
    std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto position = static_cast<int32_t>(queue.back() & 0xFFFFFFFF);
    const auto rank = static_cast<uint32_t>(queue.back() >> 32);
    queue.pop_back();
    Symbol& symbol = symbols[position];
    // The pair changed since it was queued: ranks name pairs, so a different rank tells.
    if (symbol.rank != rank) continue;
    Symbol& absorbed = symbols[symbol.next];
    symbol.id = find_merge(symbol.id, absorbed.id).merged;
    absorbed.rank = kNoMerge;
    symbol.next = absorbed.next;
    if (symbol.next >= 0) symbols[symbol.next].previous = position;
    update_pair(position);
    if (symbol.previous >= 0) update_pair(symbol.previous);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) ids->push_back(symbols[i].id);
}

}  // namespace pbserve::models
