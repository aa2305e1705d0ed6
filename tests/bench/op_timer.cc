#include "tests/bench/op_timer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <utility>
#include <vector>

#include "kernels/core/check.h"

namespace pbserve::kernels {
namespace {

constexpr double kBudgetMs = 2000;
constexpr size_t kFlushBytesCuda = size_t{256} << 20;  // several times the L2 cache of a GPU
constexpr size_t kFlushBytesCpu = size_t{64} << 20;

std::string utc_date() {
  const std::time_t seconds = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

}  // namespace

OpTime& OpTime::operator+=(const OpTime& next) {
  ms += next.ms;
  ms_min += next.ms_min;
  ms_max += next.ms_max;
  runs = runs == 0 ? next.runs : std::min(runs, next.runs);
  return *this;
}

OpTimer::OpTimer(const Stream& stream, int runs)
    : stream_(stream), runs_(std::max(runs, kRunsMin)) {
  auto buffer =
      DeviceBuffer::create(stream.device(), stream.is_cuda() ? kFlushBytesCuda : kFlushBytesCpu);
  check(buffer.ok(), buffer.status().ToString());
  flush_ = *std::move(buffer);
}

OpTime OpTimer::time(const std::function<void()>& work) {
  work();
  std::vector<double> times;
  double total_ms = 0;
  Event begin(stream_);
  Event end(stream_);
  while (std::ssize(times) < runs_ && (std::ssize(times) < kRunsMin || total_ms < kBudgetMs)) {
    // On a GPU this also keeps the stream busy while the host enqueues the work, so that the time
    // is the device's own.
    fill_zero(flush_.data(), flush_.size(), stream_);
    begin.record(stream_);
    work();
    end.record(stream_);
    end.wait();
    times.push_back(end.ms_since(begin));
    total_ms += times.back();
  }
  std::ranges::sort(times);
  const size_t size = times.size();
  return {.ms = (times[(size - 1) / 2] + times[size / 2]) / 2,
          .ms_min = times.front(),
          .ms_max = times.back(),
          .runs = static_cast<int>(size)};
}

OpReport::OpReport(const std::string& machine, const std::string& commit)
    : provenance_({{"date", utc_date()}, {"machine", machine}, {"commit", commit}}) {}

void OpReport::print(const nlohmann::ordered_json& what, const OpTime& time,
                     const nlohmann::ordered_json& rates) const {
  nlohmann::ordered_json line = provenance_;
  line.update(what);
  line["ms"] = rounded(time.ms, 4);
  line["ms_min"] = rounded(time.ms_min, 4);
  line["ms_max"] = rounded(time.ms_max, 4);
  line["runs"] = time.runs;
  line.update(rates);
  std::printf("%s\n", line.dump().c_str());
}

double rounded(double value, int num_decimals) {
  const double unit = std::pow(10.0, num_decimals);
  return std::round(value * unit) / unit;
}

}  // namespace pbserve::kernels
