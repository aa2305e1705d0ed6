// Metrics: counters, gauges and histograms under the names of vLLM, which dashboards know, with a
// prefix of our own unless another is set. Any thread may update or render.
#pragma once

#include <memory>
#include <string>

#include "engine/request.h"

namespace pbserve::engine {

class Metrics {
 public:
  // `prefix` stands before the colon of every name.
  explicit Metrics(const std::string& model_name, const std::string& prefix = "pbserve");
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Once, at the start: what routers want to know of the cache.
  void set_cache_config(int64_t page_size, int64_t num_pages);

  // After every step, by the engine thread.
  struct Gauges {
    int64_t num_running = 0;
    int64_t num_waiting = 0;
    int64_t num_pages_used = 0;
    int64_t num_pages_cached = 0;
    int64_t num_pages = 1;
  };
  void set_gauges(const Gauges& gauges);

  // Of one tier of the KV cache; the counts are those since the start.
  struct TierState {
    int64_t num_pages_used = 0;    // held by requests
    int64_t num_pages_cached = 0;  // held by the prefix cache alone
    int64_t num_pages_free = 0;
    int64_t page_bytes = 0;
    int64_t num_pages_hit = 0;     // pages that prompts began with, found here
    int64_t num_pages_copied = 0;  // to here from the other tier
  };
  void set_tiers(const TierState& device, const TierState& host, int64_t num_pages_dropped);
  // Who keeps and who fills the prefix cache; pages of both tiers, the broken and the cut since the
  // start.
  struct CacheUse {
    int64_t num_holds = 0;
    int64_t num_pages_held = 0;
    int64_t num_holds_broken = 0;
    int64_t num_holds_cut = 0;
    int64_t num_salts = 0;
    int64_t num_pages_of_largest_salt = 0;
  };
  void set_cache_use(const CacheUse& use);
  void count_preemption();
  void count_prefix_cache(int64_t queried_tokens, int64_t hit_tokens);
  void observe_step(int64_t num_prefill_tokens, int64_t num_decode_tokens);

  // By the output stage.
  void observe_first_token(double seconds);
  void observe_inter_token(double seconds);
  void observe_finished(const Completion& completion, double e2e_seconds);

  // Prometheus text format.
  std::string render() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pbserve::engine
