#include "engine/queue_bounds.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace pbserve::engine {
namespace {

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
  ++num_arriving_;
  num_tokens_arriving_ += arrival.num_tokens;
  return absl::OkStatus();
}

absl::Status QueueBounds::check_locked(const Arrival& arrival) const {
  const int64_t requests = num_requests_locked();
  if (requests >= options_.max_num_queued_reqs) {
    const int64_t too_many = requests - options_.max_num_queued_reqs + 1;
    const double share = static_cast<double>(too_many) / static_cast<double>(requests);
    return full(absl::StrCat(requests, " requests are waiting, the limit is ",
                             options_.max_num_queued_reqs, " (--max-num-queued-reqs)"),
                retry_after_s_locked(share));
  }
  const int64_t tokens = num_tokens_locked();
  const int64_t too_many = tokens + arrival.num_tokens - options_.max_num_queued_tokens;
  if (requests > 0 && too_many > 0) {  // a prompt of any length may wait alone
    const double share = static_cast<double>(too_many) / static_cast<double>(tokens);
    return full(absl::StrCat(tokens, " prompt tokens are waiting, with this prompt's ",
                             arrival.num_tokens, " the limit of ", options_.max_num_queued_tokens,
                             " (--max-num-queued-tokens) is passed"),
                retry_after_s_locked(std::min(share, 1.0)));
  }
  const double limit_s = options_.max_queued_s;
  if (limit_s == 0) return absl::OkStatus();
  const double wait_s = wait_s_locked(arrival);
  if (wait_s > limit_s) {
    return full(absl::StrFormat("a prompt would wait for about %.1f s before it starts, the limit "
                                "is %g s (--max-queue-time)",
                                wait_s, limit_s),
                static_cast<int64_t>(std::ceil(wait_s - limit_s)));
  }
  return absl::OkStatus();
}

int64_t QueueBounds::num_requests() const {
  const std::lock_guard lock(mutex_);
  return num_requests_locked();
}

double QueueBounds::fill() const {
  const std::lock_guard lock(mutex_);
  const auto share = [](auto value, auto limit) {
    return static_cast<double>(value) / static_cast<double>(limit);
  };
  const int64_t requests = num_requests_locked();
  double fullest = share(requests, options_.max_num_queued_reqs);
  if (requests > 0) {
    fullest = std::max(fullest, share(num_tokens_locked(), options_.max_num_queued_tokens));
  }
  if (options_.max_queued_s > 0) {
    fullest = std::max(fullest, share(wait_s_locked({}), options_.max_queued_s));
  }
  return fullest;
}

void QueueBounds::publish(QueueState state, const std::optional<Arrival>& arrived) {
  const std::lock_guard lock(mutex_);
  published_ = std::move(state);
  if (!arrived) return;
  --num_arriving_;
  num_tokens_arriving_ -= arrived->num_tokens;
}

// What goes before it; nothing before a rate is known.
double QueueBounds::wait_s_locked(const Arrival& arrival) const {
  if (!published_.cost.has_rate()) return 0;
  std::vector<PrefillClaim> claims = published_.claims;
  const double since_ms = ms_between(published_.time, Clock::now());
  double backlog_ms = 0;
  for (PrefillClaim& claim : claims) {
    claim.due_ms -= since_ms;
    backlog_ms += claim.remaining_ms;
  }
  const double own_ms = published_.cost.ms(0, arrival.num_tokens, arrival.pbs);
  claims.push_back({.remaining_ms = own_ms,
                    .due_ms = patience_ms(backlog_ms, arrival.priority) + kLateness * own_ms,
                    .priority = arrival.priority});
  double wait_ms = 0;
  for (const size_t i : prefill_order(claims)) {
    if (i + 1 == claims.size()) break;
    wait_ms += claims[i].remaining_ms;
  }
  return wait_ms / 1000;
}

// Until that share of the whole queue has been prefilled; at least a second.
int64_t QueueBounds::retry_after_s_locked(double share_too_many) const {
  double all_ms = 0;
  if (published_.cost.has_rate()) {
    for (const PrefillClaim& claim : published_.claims) all_ms += claim.remaining_ms;
  }
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(all_ms * share_too_many / 1000)));
}

}  // namespace pbserve::engine
