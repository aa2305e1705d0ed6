#include "engine/queue_bounds.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pbserve::engine {
namespace {

constexpr size_t index(Lane lane) { return static_cast<size_t>(lane); }

// Full for so many seconds more, as far as can be told.
absl::Status full(absl::string_view what, int64_t retry_after_s) {
  absl::Status status = absl::ResourceExhaustedError(what);
  status.SetPayload(kRetryAfterPayload, absl::Cord(absl::StrCat(retry_after_s)));
  return status;
}

}  // namespace

QueueBounds::QueueBounds(const SchedulerOptions& options) : options_(options) {}

absl::Status QueueBounds::check(const Arrival& arrival) const {
  const std::lock_guard lock(mutex_);
  return check_locked(arrival);
}

absl::Status QueueBounds::take(const Arrival& arrival) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(check_locked(arrival));
  ++arriving_.num_requests;
  arriving_.num_tokens[index(arrival.lane.value_or(Lane::kLong))] += arrival.num_tokens;
  return absl::OkStatus();
}

absl::Status QueueBounds::check_locked(const Arrival& arrival) const {
  const QueueState now = state();
  if (now.num_requests >= options_.max_num_queued_reqs) {
    const int64_t too_many = now.num_requests - options_.max_num_queued_reqs + 1;
    const double share = static_cast<double>(too_many) / static_cast<double>(now.num_requests);
    return full(absl::StrCat(now.num_requests, " requests are waiting, the limit is ",
                             options_.max_num_queued_reqs, " (--max-num-queued-reqs)"),
                retry_after_s_locked(share));
  }
  const int64_t tokens = now.total_tokens();
  const int64_t too_many = tokens + arrival.num_tokens - options_.max_num_queued_tokens;
  if (now.num_requests > 0 && too_many > 0) {  // a prompt of any length may wait alone
    const double share = static_cast<double>(too_many) / static_cast<double>(tokens);
    return full(absl::StrCat(tokens, " prompt tokens are waiting, with this prompt's ",
                             arrival.num_tokens, " the limit of ", options_.max_num_queued_tokens,
                             " (--max-num-queued-tokens) is passed"),
                retry_after_s_locked(std::min(share, 1.0)));
  }
  const double limit_s = options_.max_queued_s;
  const double wait_s = wait_s_locked(arrival.lane).value_or(0);
  if (limit_s > 0 && wait_s > limit_s) {
    return full(absl::StrFormat("a prompt would wait for about %.1f s before it starts, the limit "
                                "is %g s (--max-queue-time)",
                                wait_s, limit_s),
                static_cast<int64_t>(std::ceil(wait_s - limit_s)));
  }
  return absl::OkStatus();
}

int64_t QueueBounds::num_requests() const {
  const std::lock_guard lock(mutex_);
  return state().num_requests;
}

double QueueBounds::fill() const {
  const std::lock_guard lock(mutex_);
  const QueueState now = state();
  const auto share = [](auto value, auto limit) {
    return static_cast<double>(value) / static_cast<double>(limit);
  };
  double fullest = share(now.num_requests, options_.max_num_queued_reqs);
  if (now.num_requests > 0) {
    fullest = std::max(fullest, share(now.total_tokens(), options_.max_num_queued_tokens));
  }
  if (options_.max_queued_s > 0) {
    fullest = std::max(fullest, share(wait_s_locked({}).value_or(0), options_.max_queued_s));
  }
  return fullest;
}

void QueueBounds::publish(const QueueState& state, const std::optional<Arrival>& arrived) {
  const std::lock_guard lock(mutex_);
  published_ = state;
  if (!arrived) return;
  --arriving_.num_requests;
  arriving_.num_tokens[index(arrived->lane.value_or(Lane::kLong))] -= arrived->num_tokens;
}

void QueueBounds::observe_prefill(Lane lane, int64_t num_tokens, double ms) {
  constexpr double kNewest = 0.3;
  constexpr double kShortestMs = 1e-3;
  const double rate = static_cast<double>(num_tokens) / std::max(ms, kShortestMs);
  const std::lock_guard lock(mutex_);
  double& smoothed = tokens_per_ms_[index(lane)];
  smoothed = smoothed == 0 ? rate : kNewest * rate + (1 - kNewest) * smoothed;
}

std::optional<double> QueueBounds::prefill_ms(Lane lane, int64_t num_tokens) const {
  const std::lock_guard lock(mutex_);
  return prefill_ms_locked(lane, num_tokens);
}

std::optional<double> QueueBounds::prefill_ms_locked(Lane lane, int64_t num_tokens) const {
  const double own = tokens_per_ms_[index(lane)];
  const double rate = own > 0 ? own : *std::ranges::max_element(tokens_per_ms_);
  if (rate == 0) return std::nullopt;
  return static_cast<double>(num_tokens) / rate;
}

// Until what is ahead in the lane has been prefilled; in the emptier one where it is not known.
std::optional<double> QueueBounds::wait_s_locked(const std::optional<Lane>& lane) const {
  const QueueState now = state();
  std::optional<double> shortest;
  for (const Lane each : kLanes) {
    if (lane && *lane != each) continue;
    const std::optional<double> ms = prefill_ms_locked(each, now.num_tokens[index(each)]);
    if (ms && (!shortest || *ms / 1000 < *shortest)) shortest = *ms / 1000;
  }
  return shortest;
}

// Until that share of the whole queue has been prefilled; at least a second.
int64_t QueueBounds::retry_after_s_locked(double share_too_many) const {
  const QueueState now = state();
  double all_ms = 0;
  for (const Lane lane : kLanes) {
    all_ms = std::max(all_ms, prefill_ms_locked(lane, now.num_tokens[index(lane)]).value_or(0));
  }
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(all_ms * share_too_many / 1000)));
}

QueueState QueueBounds::state() const {
  QueueState sum = published_;
  sum.num_requests += arriving_.num_requests;
  for (size_t i = 0; i < sum.num_tokens.size(); ++i) sum.num_tokens[i] += arriving_.num_tokens[i];
  return sum;
}

}  // namespace pbserve::engine
