// Sequence: one generation on its way through the engine. Knows no tokenizer, no socket and no
// device. Owned by the Scheduler, touched by the engine thread alone.
//
// Lengths, in tokens, always num_cached <= num_computed <= num_tokens <= num_tokens_max:
//   num_cached      prompt tokens whose pages came from the prefix cache at the last admission
//   num_computed    tokens whose K/V are in pages, or will be when the launched steps have run
//   num_tokens      prompt + generated, tokens drawn by a launched step but not read back included
//   num_tokens_max  limit fixed at admission: prompt + max_tokens, at most the context limit
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/block_table.h"
#include "engine/request.h"

namespace pbserve::engine {

using SequenceId = uint64_t;

// Request fields after every default has been applied.
struct ResolvedSampling {
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;
  uint64_t seed = 0;
};

struct SequenceSpec {
  SequenceId id = 0;
  std::vector<int32_t> prompt;  // not empty
  int64_t num_tokens_max = 0;
  int64_t num_tokens_min = 0;  // ends of text are not drawn below this length
  ResolvedSampling sampling;
  std::vector<int32_t> stop_ids;  // token ids that end it: end of text and stop_token_ids
  bool pbs = false;               // prefill with PBS (decided by length and request alone)
  float pbs_threshold = 0.0f;
  int32_t priority = 0;    // prefill_order.h
  float cache_hold_s = 0;  // its pages are held so long once it has finished
  std::string cache_root;  // provenance of its pages: attention settings and salt
  Clock::time_point submitted;
  std::optional<Clock::time_point> deadline;
};

// Blocks that prefill attention attended, beside those of a dense causal pass over the same rows.
struct BlockCounts {
  std::vector<int64_t> attended;  // [num_layers]
  std::vector<int64_t> causal;    // [num_layers]

  void add(const BlockCounts& other);
};

// The audit of PBS: shares of the attention mass that were taken, summed over sampled rows.
struct CoverageSums {
  int64_t num_heads = 0;          // Hq
  std::vector<double> sums;       // [num_layers, Hq]
  std::vector<int64_t> num_rows;  // [num_layers]: sampled of each head; 0 where a layer ran dense

  void add(const CoverageSums& other);
};

enum class Phase : uint8_t { kWaiting, kPrefill, kDecode };

class Sequence {
 public:
  explicit Sequence(SequenceSpec spec);

  const SequenceSpec& spec() const { return spec_; }
  SequenceId id() const { return spec_.id; }

  int64_t num_prompt() const { return static_cast<int64_t>(spec_.prompt.size()); }
  int64_t num_cached() const { return num_cached_; }
  int64_t num_computed() const { return num_computed_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_known() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t num_generated() const { return num_known() - num_prompt(); }
  bool has_token_in_flight() const { return num_tokens_ > num_known(); }
  bool at_length_limit() const { return num_tokens_ >= spec_.num_tokens_max; }

  // Prompt and generated tokens that have been read back.
  const std::vector<int32_t>& tokens() const { return tokens_; }

  // Prefill (again): pages for `num_cached` tokens are in `blocks` already.
  void start_prefill(int64_t num_cached, int32_t slot);
  // Back to waiting: gives up the pages, to be computed again later.
  void stop_running();
  void advance_computed(int64_t num_computed);
  void expect_token();               // a launched step draws the next token
  void append_token(int32_t token);  // it has been read back
  bool is_stop(int32_t token) const;

  Phase phase = Phase::kWaiting;
  int32_t slot = -1;  // index of its last token on the device, while not waiting
  BlockTable blocks;
  PrefixMatch match;  // what the prefix cache has of it, as of the last look
  // By when it would be late if it took no time itself (prefill_order.h); unset until a rate is
  // known.
  std::optional<Clock::time_point> due;
  double spent_ms = 0;  // of jobs it was in

  // For the response.
  int64_t first_cached = -1;  // num_cached at the first admission: what usage reports
  Clock::time_point prefill_begin;
  Clock::time_point prefill_end;
  int64_t num_reported = 0;  // of the prompt, in progress events
  int64_t num_held = 0;      // tokens whose pages are held
  BlockCounts density;
  CoverageSums coverage;

 private:
  void check_lengths() const;

  SequenceSpec spec_;
  std::vector<int32_t> tokens_;
  int64_t num_cached_ = 0;
  int64_t num_computed_ = 0;
  int64_t num_tokens_ = 0;
};

using SequenceMap = std::unordered_map<SequenceId, std::unique_ptr<Sequence>>;

}  // namespace pbserve::engine
