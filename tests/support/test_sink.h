// A ResponseSink that remembers everything, and the waiting end that a test holds.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/request.h"

namespace pbserve::engine {

class Recording {
 public:
  // The sink to submit; the recording outlives it.
  std::unique_ptr<ResponseSink> sink() { return std::make_unique<Sink>(*this); }

  // Blocks until on_done.
  const Completion& wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return completion_;
  }
  // Blocks until `count` tokens have arrived or the request is done.
  void wait_for_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ || tokens_.size() >= count; });
  }
  void wait_for_progress() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_ || !progress_.empty(); });
  }

  // REQUIRES: wait() has returned.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::string& text() const { return text_; }
  const std::vector<Clock::time_point>& times() const { return times_; }
  const std::vector<PrefillProgress>& progress() const { return progress_; }
  const Accepted& accepted() const { return accepted_; }

 private:
  class Sink : public ResponseSink {
   public:
    explicit Sink(Recording& to) : to_(to) {}
    void on_accepted(const Accepted& accepted) override {
      to_.change([&] { to_.accepted_ = accepted; });
    }
    void on_progress(const PrefillProgress& progress) override {
      to_.change([&] { to_.progress_.push_back(progress); });
    }
    void on_text(TextDelta delta) override {
      to_.change([&] {
        to_.text_ += delta.text;
        for (int32_t id : delta.token_ids) {
          to_.tokens_.push_back(id);
          to_.times_.push_back(Clock::now());
        }
      });
    }
    void on_done(const Completion& completion) override {
      to_.change([&] {
        to_.completion_ = completion;
        to_.done_ = true;
      });
    }

   private:
    Recording& to_;
  };

  template <class Change>
  void change(Change apply) {
    std::lock_guard lock(mutex_);
    apply();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  Accepted accepted_;
  std::vector<PrefillProgress> progress_;
  std::vector<int32_t> tokens_;
  std::vector<Clock::time_point> times_;
  std::string text_;
  Completion completion_;
};

}  // namespace pbserve::engine
