// Where a prompt is cut for prefill, and what of it may be reused. A chunk is what one job computes
// of one prompt; how a prompt is cut never shows in its results, whereas a span of PBS (pbs.h) is
// what its decisions are made for.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/config.h"
#include "engine/sequence.h"
#include "engine/step.h"

namespace pbserve::engine {

struct ChunkRules {
  int64_t span = 1024;     // C of PBS; 0 = the whole prompt
  int64_t segment = 256;   // S
  int64_t dense_tail = 2;  // blocks at the end of a PBS prompt that see everything
  PrefixReuse reuse = PrefixReuse::kExact;
  int64_t main_rows = 8192;     // rows the main lane holds; >= span
  int64_t express_rows = 2048;  // rows the express lane holds

  int64_t rows(Lane lane) const { return lane == Lane::kMain ? main_rows : express_rows; }
};

// The next tokens to compute of a sequence of which `begin` are computed and some are left, in at
// most so many rows (a multiple of kPageSize). Nothing where PBS needs more rows: a span is whole.
//   PBS sequences: complete spans of the prompt, as many as the rows hold, the last to the prompt's
//                  end; then, dense, what was generated before a preemption
//   dense ones:    [begin, min(begin + rows, num_tokens))
std::optional<PrefillChunk> next_chunk(const Sequence& sequence, int64_t begin,
                                       const ChunkRules& rules, int64_t rows_max);

// Leading tokens whose pages another request may reuse, at most those read back. Dense sequences:
// whole pages. PBS, exact: complete spans before the one that holds the first row of the dense
// tail, since a longer prompt would not compute those rows densely. `any`: whole pages.
int64_t num_reusable(const Sequence& sequence, const ChunkRules& rules);

// The longest cached prefix this sequence may start from, short of its last token, whose logits are
// needed. Dense: whole pages. PBS, exact: as above, by its own dense tail. PBS, `any`: whole
// segments.
int64_t usable_prefix(const Sequence& sequence, int64_t num_found, const ChunkRules& rules);

}  // namespace pbserve::engine
