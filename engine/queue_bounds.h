// QueueBounds: whether the queue takes one more request, in requests, prompt tokens and estimated
// seconds, and when it has room again. The one place that estimates a wait, from the prefill rate
// that was measured. Any thread may ask; the engine's thread tells.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "engine/config.h"
#include "engine/step.h"
#include "kernels/core/status.h"

namespace pbserve::engine {

// What has not started, and what the lanes have left to do.
struct QueueState {
  int64_t num_requests = 0;                     // that have not started
  std::array<int64_t, kNumLanes> num_tokens{};  // to prefill, running jobs included

  int64_t total_tokens() const { return num_tokens[0] + num_tokens[1]; }
};

class QueueBounds {
 public:
  explicit QueueBounds(const SchedulerOptions& options);

  // A request on its way, as far as it is known.
  struct Arrival {
    int64_t num_tokens = 1;    // at least
    std::optional<Lane> lane;  // unset before the prompt has been tokenised
  };

  // Whether it would be taken now. kResourceExhausted names what is over its limit and carries
  // kRetryAfterPayload. Of an arrival without a lane the shorter wait counts.
  absl::Status check(const Arrival& arrival) const;
  // The same, and it counts as arriving from here on: no two take the last place.
  absl::Status take(const Arrival& arrival);

  int64_t num_requests() const;
  // The fullest bound's share: from 1 on requests are refused.
  double fill() const;

  // ---- engine thread ----

  // After every change. `arrived`: it was taken, and is part of `state` from now on.
  void publish(const QueueState& state, const std::optional<Arrival>& arrived = {});
  void observe_prefill(Lane lane, int64_t num_tokens, double ms);
  // Until so many tokens of a lane have been prefilled; nothing before a rate is known.
  std::optional<double> prefill_ms(Lane lane, int64_t num_tokens) const;

 private:
  QueueState state() const;
  absl::Status check_locked(const Arrival& arrival) const;
  std::optional<double> prefill_ms_locked(Lane lane, int64_t num_tokens) const;
  std::optional<double> wait_s_locked(const std::optional<Lane>& lane) const;
  int64_t retry_after_s_locked(double share_too_many) const;

  const SchedulerOptions options_;
  mutable std::mutex mutex_;  // guards what follows
  QueueState published_;
  QueueState arriving_;
  std::array<double, kNumLanes> tokens_per_ms_{};  // of finished jobs, smoothed; 0 = none yet
};

}  // namespace pbserve::engine
