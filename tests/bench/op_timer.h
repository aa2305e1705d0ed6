// How bench_ops times an operation and what it prints of it.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "kernels/core/buffer.h"
#include "kernels/core/stream.h"

namespace pbserve::kernels {

// Over the runs of one operation, in milliseconds.
struct OpTime {
  double ms = 0;  // median
  double ms_min = 0;
  double ms_max = 0;
  int runs = 0;

  // Of operations one after the other: the sums, and the fewest runs of any.
  OpTime& operator+=(const OpTime& next);
};

class OpTimer {
 public:
  static constexpr int kRunsMin = 5;

  // Takes a buffer of the device for the flushes. `stream` outlives the timer. `runs` are made if
  // they fit 2 seconds, and at least kRunsMin.
  OpTimer(const Stream& stream, int runs);

  // `work` enqueues the operation. It runs once before the first timed run.
  OpTime time(const std::function<void()>& work);

 private:
  const Stream& stream_;
  int runs_;
  DeviceBuffer flush_;
};

// JSON lines on stdout. Each has the date of the program's start (UTC), machine and commit first.
class OpReport {
 public:
  OpReport(const std::string& machine, const std::string& commit);

  // What was timed, its time, and the rates that follow from it.
  void print(const nlohmann::ordered_json& what, const OpTime& time,
             const nlohmann::ordered_json& rates) const;

 private:
  nlohmann::ordered_json provenance_;
};

// For JSON: without the digits that no measurement has.
double rounded(double value, int num_decimals);

}  // namespace pbserve::kernels
