// The one bound on what the wire holds: bodies and messages, parsed messages, what was read ahead,
// and responses that clients have not read. Requests that carry a key, where keys are set, spend
// it; what others may hold has small bounds of its own. Thread-safe.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

namespace pbserve::server {

// Of a response so much is not charged: who reads in time stays below it, so that no upload of
// others cuts it off.
inline constexpr int64_t kFreeResponseBytes = 64 << 10;

class ByteBudget {
 public:
  explicit ByteBudget(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  int64_t limit_bytes() const { return limit_bytes_; }
  int64_t held_bytes() const { return held_bytes_.load(); }

  // What one holder has of it; gives it back when it goes. Without a budget nothing is charged.
  class Lease {
   public:
    Lease() = default;
    explicit Lease(ByteBudget* budget) : budget_(budget) {}
    Lease(Lease&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Lease& operator=(Lease&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Lease() {
      if (budget_ != nullptr) budget_->held_bytes_ -= bytes_;
    }

    // False, and unchanged, if the budget does not have the difference.
    [[nodiscard]] bool grow_to(int64_t bytes) {
      if (budget_ == nullptr) return true;
      const int64_t more = bytes - bytes_;
      if (budget_->held_bytes_.fetch_add(more) + more > budget_->limit_bytes_ && more > 0) {
        budget_->held_bytes_ -= more;
        return false;
      }
      bytes_ = bytes;
      return true;
    }
    // The same for what a response holds.
    [[nodiscard]] bool grow_to_response(int64_t bytes) {
      return grow_to(std::max<int64_t>(bytes - kFreeResponseBytes, 0));
    }

   private:
    ByteBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

 private:
  const int64_t limit_bytes_;
  std::atomic<int64_t> held_bytes_{0};
};

}  // namespace pbserve::server
