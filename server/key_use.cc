#include "server/key_use.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/api_error.h"

namespace pbserve::server {

int64_t KeyUse::num_requests() const {
  const std::lock_guard lock(mutex_);
  return num_requests_;
}

int64_t KeyUse::num_tokens() const {
  const std::lock_guard lock(mutex_);
  return num_tokens_;
}

absl::Status KeySlot::take(std::shared_ptr<KeyUse> use) {
  if (use == nullptr) return absl::OkStatus();
  {
    const std::lock_guard lock(use->mutex_);
    const int64_t limit = use->limits_.max_requests;
    if (limit > 0 && use->num_requests_ >= limit) {
      return key_limit(absl::StrCat("this API key has server.max_requests_per_key = ", limit,
                                    " requests in flight: try again when one has ended"));
    }
    ++use->num_requests_;
  }
  use_ = std::move(use);
  return absl::OkStatus();
}

absl::Status KeySlot::charge(int64_t num_tokens) {
  if (use_ == nullptr) return absl::OkStatus();
  const std::lock_guard lock(use_->mutex_);
  const int64_t limit = use_->limits_.max_tokens;
  if (limit > 0 && num_tokens > limit) {
    return invalid_field("max_tokens",
                         absl::StrCat("prompt and max_tokens have ", num_tokens,
                                      " tokens together, more than server.max_tokens_per_key = ",
                                      limit, " allows all requests of this API key"));
  }
  if (limit > 0 && use_->num_tokens_ + num_tokens > limit) {
    return key_limit(absl::StrCat("this API key has ", use_->num_tokens_, " tokens in flight, ",
                                  num_tokens, " more exceed server.max_tokens_per_key = ", limit,
                                  ": try again when a request has ended"));
  }
  use_->num_tokens_ += num_tokens;
  num_tokens_ = num_tokens;
  return absl::OkStatus();
}

void KeySlot::give_back() {
  if (use_ == nullptr) return;
  {
    const std::lock_guard lock(use_->mutex_);
    --use_->num_requests_;
    use_->num_tokens_ -= std::exchange(num_tokens_, 0);
  }
  use_.reset();
}

}  // namespace pbserve::server
