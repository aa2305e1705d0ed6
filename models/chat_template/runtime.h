// What one rendering owns beside its values: the budget of work, the clock and the namespaces.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "models/chat_template/limits.h"
#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

class Runtime {
 public:
  Runtime(const RenderLimits& limits, std::time_t clock) : limits_(limits), clock_(clock) {}

  const RenderLimits& limits() const { return limits_; }
  std::time_t clock() const { return clock_; }  // what strftime_now() shows

  // Counts work before it is done; fails when the budget is spent.
  absl::Status charge(size_t units) {
    if (units <= limits_.work_units - spent_) {
      spent_ += units;
      return absl::OkStatus();
    }
    return render_error("rendering needs more than its limit of ",
                        std::to_string(limits_.work_units), " units of work");
  }
  absl::Status charge_items(size_t count) { return charge(count * kStepUnits); }

  // The error of raise_exception(): its message reaches the caller as it is, without a line.
  absl::Status raise(const std::string& message) {
    raised_ = true;
    return absl::InvalidArgumentError(message);
  }
  bool raised() const { return raised_; }

  Namespace* new_namespace() {
    return namespaces_.emplace_back(std::make_unique<Namespace>()).get();
  }

 private:
  const RenderLimits limits_;
  const std::time_t clock_;
  bool raised_ = false;
  size_t spent_ = 0;  // <= limits_.work_units
  std::vector<std::unique_ptr<Namespace>> namespaces_;
};

}  // namespace pbserve::models::jinja
