#include "engine/prefill_chunks.h"

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/pbs.h"

namespace pbserve::engine {

using kernels::align_down;
using kernels::kPageSize;

namespace {

bool runs_pbs(const Sequence& sequence, int64_t begin) {
  return sequence.spec().pbs && begin < sequence.num_prompt();
}

// Past `begin`, or `begin` itself where no span fits.
int64_t pbs_chunk_end(const Sequence& sequence, int64_t begin, const ChunkRules& rules,
                      int64_t rows_max) {
  const int64_t prompt = sequence.num_prompt();
  if (prompt - begin <= rows_max) return prompt;
  if (rules.span == 0) return begin;
  return std::max(align_down(begin + rows_max, rules.span), begin);
}

// Tokens in complete spans that hold no row of the dense tail.
int64_t exact_prefix(const Sequence& sequence, const ChunkRules& rules) {
  if (rules.span == 0) return 0;
  const auto prompt = static_cast<int32_t>(sequence.num_prompt());
  const int64_t tail_block =
      kernels::first_tail_block(prompt, static_cast<int32_t>(rules.dense_tail));
  return align_down(std::min<int64_t>(tail_block * kPageSize, prompt), rules.span);
}

}  // namespace

std::optional<PrefillChunk> next_chunk(const Sequence& sequence, int64_t begin,
                                       const ChunkRules& rules, int64_t rows_max) {
  check(begin < sequence.num_tokens(), "prefill of a sequence with nothing left");
  const bool pbs = runs_pbs(sequence, begin);
  const int64_t end = pbs ? pbs_chunk_end(sequence, begin, rules, rows_max)
                          : std::min(begin + rows_max, sequence.num_tokens());
  if (end == begin) return std::nullopt;
  return PrefillChunk{.id = sequence.id(),
                      .begin = begin,
                      .end = end,
                      .pbs = pbs,
                      .pbs_threshold = sequence.spec().pbs_threshold,
                      .prompt_len = sequence.num_prompt(),
                      .pools_prefix = pbs && rules.reuse == PrefixReuse::kAny && begin > 0 &&
                                      begin == sequence.num_cached(),
                      .draws_token = end == sequence.num_tokens()};
}

int64_t num_reusable(const Sequence& sequence, const ChunkRules& rules) {
  const int64_t known = std::min(sequence.num_computed(), sequence.num_known());
  if (!sequence.spec().pbs || rules.reuse == PrefixReuse::kAny) {
    return align_down<int64_t>(known, kPageSize);
  }
  return std::min(exact_prefix(sequence, rules),
                  rules.span == 0 ? 0 : align_down(known, rules.span));
}

int64_t usable_prefix(const Sequence& sequence, int64_t num_found, const ChunkRules& rules) {
  const int64_t most = std::min(num_found, sequence.num_known() - 1);
  if (!sequence.spec().pbs) return align_down<int64_t>(most, kPageSize);
  const int64_t of_prompt = std::min(most, sequence.num_prompt() - 1);
  if (rules.reuse == PrefixReuse::kAny) return align_down(of_prompt, rules.segment);
  if (rules.span == 0) return 0;
  return std::min(exact_prefix(sequence, rules), align_down(of_prompt, rules.span));
}

}  // namespace pbserve::engine
