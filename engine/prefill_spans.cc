#include "engine/prefill_spans.h"

#include <algorithm>

#include "kernels/core/bits.h"
#include "kernels/core/check.h"
#include "kernels/ops/rope.h"

namespace pbserve::engine {

using kernels::align_down;
using kernels::kPageSize;

namespace {

int64_t span_end(const Sequence& sequence, int64_t begin, const SpanRules& rules) {
  if (!sequence.spec().pbs) return std::min(begin + rules.long_rows, sequence.num_tokens());
  const int64_t prompt = sequence.num_prompt();
  if (begin >= prompt) return std::min(begin + rules.long_rows, sequence.num_tokens());
  return rules.span == 0 ? prompt : std::min(begin + rules.span, prompt);
}

bool runs_pbs(const Sequence& sequence, int64_t begin, int64_t end, const SpanRules& rules) {
  if (!sequence.spec().pbs || begin >= sequence.num_prompt()) return false;
  const bool complete = rules.span != 0 && end - begin == rules.span;
  return complete || sequence.spec().pbs_short_spans || end - begin >= rules.min_tokens;
}

}  // namespace

PrefillSpan next_span(const Sequence& sequence, const SpanRules& rules) {
  const int64_t begin = sequence.num_computed();
  check(begin < sequence.num_tokens(), "prefill of a sequence with nothing left");
  const int64_t end = span_end(sequence, begin, rules);
  return {.id = sequence.id(),
          .begin = begin,
          .end = end,
          .pbs = runs_pbs(sequence, begin, end, rules),
          .pbs_threshold = sequence.spec().pbs_threshold,
          .draws_token = end == sequence.num_tokens()};
}

int64_t num_reusable(const Sequence& sequence, const SpanRules& rules) {
  const int64_t known = std::min(sequence.num_computed(), sequence.num_known());
  if (!sequence.spec().pbs) return align_down<int64_t>(known, kPageSize);
  if (rules.span == 0) return 0;
  return align_down(std::min(known, sequence.num_prompt()), rules.span);
}

int64_t usable_prefix(const Sequence& sequence, int64_t num_found, const SpanRules& rules) {
  const int64_t most = std::min(num_found, sequence.num_known() - 1);
  if (!sequence.spec().pbs) return align_down<int64_t>(most, kPageSize);
  if (rules.span == 0) return 0;
  return align_down(std::min(most, sequence.num_prompt() - 1), rules.span);
}

}  // namespace pbserve::engine
