// Where a prompt is cut for prefill, and which spans run PBS. Everything here follows from the
// request and its length alone, never from the cache or the batch: so does the K/V it leads to.
#pragma once

#include <cstdint>

#include "engine/sequence.h"
#include "engine/step.h"

namespace pbserve::engine {

struct SpanRules {
  int64_t span = 8192;        // C, tokens planned together by PBS; 0 = the whole prompt
  int64_t min_tokens = 0;     // an incomplete last span shorter than this runs dense
  int64_t long_rows = 8192;   // rows the long lane holds; >= span
  int64_t short_rows = 2048;  // rows the short lane holds
};

// The next tokens to compute of a sequence that has some left.
//   PBS sequences: [s, min(s + C, prompt)), then what was generated before a preemption
//   dense ones:    [s, min(s + long_rows, num_tokens))
PrefillSpan next_span(const Sequence& sequence, const SpanRules& rules);

// Leading tokens whose pages another request may reuse: whole pages of dense sequences, complete
// spans of PBS ones. At most `num_computed` and at most the tokens read back.
int64_t num_reusable(const Sequence& sequence, const SpanRules& rules);

// The longest cached prefix this sequence may start from: cut to whole spans under PBS, and short
// of its last token, whose logits are needed.
int64_t usable_prefix(const Sequence& sequence, int64_t num_found, const SpanRules& rules);

}  // namespace pbserve::engine
