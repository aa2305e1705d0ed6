// A shared bound on bytes held at once: request bodies of all connections together. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace pbserve::server {

class ByteBudget {
 public:
  explicit ByteBudget(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  int64_t limit_bytes() const { return limit_bytes_; }
  int64_t held_bytes() const { return held_bytes_.load(); }

  // What one body holds; gives it back when it goes.
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
      const int64_t more = bytes - bytes_;
      if (budget_->held_bytes_.fetch_add(more) + more > budget_->limit_bytes_) {
        budget_->held_bytes_ -= more;
        return false;
      }
      bytes_ = bytes;
      return true;
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
