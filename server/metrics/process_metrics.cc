#include "server/metrics/process_metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <vector>

#include "server/descriptor_watch.h"

namespace pbserve::server {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

// The fields of /proc/self/stat behind the program's name, which may hold spaces: proc(5) counts
// the first of them as 3.
class ProcessStat {
 public:
  ProcessStat() {
    std::ifstream file("/proc/self/stat");
    const std::string text(std::istreambuf_iterator<char>(file), {});
    std::istringstream rest(text.substr(text.rfind(')') + 1));
    fields_.assign(std::istream_iterator<std::string>(rest), {});
  }
  bool ok() const { return fields_.size() > 22; }
  double field(size_t number) const { return std::stod(fields_[number - 3]); }

 private:
  std::vector<std::string> fields_;
};

// Unix time at which the machine started, or nothing.
double boot_time_s() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  }
  return std::nan("");
}

double open_descriptors() {
  const std::optional<int64_t> count = num_open_descriptors();
  return count ? static_cast<double>(*count) : std::nan("");
}

double max_descriptors() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<double>(limit.rlim_cur) : std::nan("");
}

MetricFamily family(const char* name, const char* help, MetricType type, double value) {
  MetricFamily family{.name = name, .help = help, .type = type, .metric = {}};
  prometheus::ClientMetric metric;
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(metric);
  return family;
}

}  // namespace

std::string render_process_metrics() {
  std::vector<MetricFamily> families;
  const auto add = [&](const char* name, const char* help, MetricType type, double value) {
    if (!std::isnan(value)) families.push_back(family(name, help, type, value));
  };
  if (const ProcessStat stat; stat.ok()) {
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    add("process_cpu_seconds_total", "User and system CPU time.", MetricType::Counter,
        (stat.field(14) + stat.field(15)) / ticks);
    add("process_threads", "Threads of the process.", MetricType::Gauge, stat.field(20));
    add("process_start_time_seconds", "Unix time of the start.", MetricType::Gauge,
        boot_time_s() + stat.field(22) / ticks);
    add("process_virtual_memory_bytes", "Address space.", MetricType::Gauge, stat.field(23));
    add("process_resident_memory_bytes", "Memory in use.", MetricType::Gauge,
        stat.field(24) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  }
  add("process_open_fds", "Open descriptors.", MetricType::Gauge, open_descriptors());
  add("process_max_fds", "Limit of open descriptors.", MetricType::Gauge, max_descriptors());
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace pbserve::server
