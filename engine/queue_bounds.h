// QueueBounds: whether the queue takes one more request, in requests, prompt tokens and estimated
// seconds, and when it has room again. The one place that estimates a newcomer's wait, from the
// order in which prompts prefill and what prefill was measured to take. Any thread may ask; the
// engine's thread tells.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/config.h"
#include "engine/prefill_cost.h"
#include "engine/prefill_order.h"
#include "kernels/core/status.h"

namespace pbserve::engine {

// What has not started, and what prefill has left to do.
struct QueueState {
  int64_t num_requests = 0;  // that have not started
  int64_t num_tokens = 0;    // to prefill, prompts under way included
  PrefillCost cost;
  Clock::time_point time;            // of the claims
  std::vector<PrefillClaim> claims;  // of every prompt with something to prefill
};

class QueueBounds {
 public:
  explicit QueueBounds(const SchedulerOptions& options);

  // A request on its way, as far as it is known.
  struct Arrival {
    int64_t num_tokens = 1;  // at least
    bool pbs = false;
    int32_t priority = 0;
  };

  // Whether it would be taken now. kResourceExhausted names what is over its limit and carries
  // kRetryAfterPayload.
  absl::Status check(const Arrival& arrival) const;
  // The same, and it counts as arriving from here on: no two take the last place.
  absl::Status take(const Arrival& arrival);

  int64_t num_requests() const;
  // The fullest bound's share: from 1 on requests are refused.
  double fill() const;

  // ---- engine thread ----

  // After every change. `arrived`: it was taken, and is part of `state` from now on.
  void publish(QueueState state, const std::optional<Arrival>& arrived = {});

 private:
  int64_t num_requests_locked() const { return published_.num_requests + num_arriving_; }
  int64_t num_tokens_locked() const { return published_.num_tokens + num_tokens_arriving_; }
  absl::Status check_locked(const Arrival& arrival) const;
  double wait_s_locked(const Arrival& arrival) const;
  int64_t retry_after_s_locked(double share_too_many) const;

  const SchedulerOptions options_;
  mutable std::mutex mutex_;  // guards what follows
  QueueState published_;
  int64_t num_arriving_ = 0;
  int64_t num_tokens_arriving_ = 0;
};

}  // namespace pbserve::engine
