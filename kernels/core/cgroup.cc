// Files and their meaning: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
#include "kernels/core/cgroup.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <sstream>

namespace pbserve::kernels {
namespace {

// Version 1 writes "no limit" as the largest number of whole pages.
constexpr int64_t kNoLimitBytes = int64_t{1} << 60;

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The number a file begins with; nothing for "max", "-1" or no file.
std::optional<int64_t> read_number(const std::string& path) {
  std::istringstream text(read_text(path));
  int64_t number = 0;
  return text >> number && number >= 0 ? std::optional(number) : std::nullopt;
}

// The number behind `key` in a file of lines "key number"; 0 if it is not there.
int64_t read_entry(const std::string& path, const std::string& key) {
  std::istringstream lines(read_text(path));
  std::string name;
  for (int64_t number = 0; lines >> name >> number;) {
    if (name == key) return number;
  }
  return 0;
}

// The process's path in the tree of `controller`, or for "" in that of version 2, from lines
// "4:cpu,cpuacct:/path" and "0::/path".
std::string path_of(const std::string& own, const std::string& controller) {
  std::istringstream lines(own);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_wanted = controller.empty()
                               ? names == ",,"
                               : names.find("," + controller + ",") != std::string::npos;
    if (is_wanted) return line.substr(second + 1);
  }
  return "";
}

// Calls visit(folder) for the process's level of a tree and those above it. Inside a container the
// path may be the host's, which is not there: the levels that are there count.
void visit_levels(const std::string& tree, std::string path,
                  const std::function<void(const std::string&)>& visit) {
  while (path.size() > 1) {
    visit(tree + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  visit(tree);
}

struct MemoryFiles {
  const char* limit;
  const char* used;
  const char* unused_cache;  // a key of memory.stat
};

void take_memory(const std::string& folder, const MemoryFiles& files,
                 std::optional<CgroupMemory>* memory) {
  const auto limit = read_number(folder + "/" + files.limit);
  const auto used = read_number(folder + "/" + files.used);
  if (!limit || !used || *limit >= kNoLimitBytes) return;
  const int64_t cache = read_entry(folder + "/memory.stat", files.unused_cache);
  const int64_t busy = std::max<int64_t>(0, *used - cache);
  const CgroupMemory level{.limit_bytes = *limit,
                           .free_bytes = std::max<int64_t>(0, *limit - busy)};
  if (!*memory) *memory = level;
  (*memory)->limit_bytes = std::min((*memory)->limit_bytes, level.limit_bytes);
  (*memory)->free_bytes = std::min((*memory)->free_bytes, level.free_bytes);
}

void take_cpus(std::optional<int64_t> quota_us, std::optional<int64_t> period_us,
               std::optional<double>* cpus) {
  if (!quota_us || !period_us || *quota_us == 0 || *period_us == 0) return;
  const double level = static_cast<double>(*quota_us) / static_cast<double>(*period_us);
  *cpus = std::min(cpus->value_or(level), level);
}

void take_cpu_max(const std::string& folder, std::optional<double>* cpus) {  // "max 100000"
  std::istringstream text(read_text(folder + "/cpu.max"));
  int64_t quota_us = 0;
  int64_t period_us = 0;
  if (text >> quota_us >> period_us) take_cpus(quota_us, period_us, cpus);
}

}  // namespace

Cgroup own_cgroup() { return {.own = read_text("/proc/self/cgroup")}; }

std::optional<CgroupMemory> cgroup_memory(const Cgroup& cgroup) {
  std::optional<CgroupMemory> memory;
  constexpr MemoryFiles kV1{"memory.limit_in_bytes", "memory.usage_in_bytes",
                            "total_inactive_file"};
  constexpr MemoryFiles kV2{"memory.max", "memory.current", "inactive_file"};
  visit_levels(cgroup.root, path_of(cgroup.own, ""),
               [&](const std::string& folder) { take_memory(folder, kV2, &memory); });
  visit_levels(cgroup.root + "/memory", path_of(cgroup.own, "memory"),
               [&](const std::string& folder) { take_memory(folder, kV1, &memory); });
  return memory;
}

std::optional<double> cgroup_cpus(const Cgroup& cgroup) {
  std::optional<double> cpus;
  visit_levels(cgroup.root, path_of(cgroup.own, ""),
               [&](const std::string& folder) { take_cpu_max(folder, &cpus); });
  const auto take_v1 = [&](const std::string& folder) {
    take_cpus(read_number(folder + "/cpu.cfs_quota_us"), read_number(folder + "/cpu.cfs_period_us"),
              &cpus);
  };
  visit_levels(cgroup.root + "/cpu", path_of(cgroup.own, "cpu"), take_v1);
  return cpus;
}

int num_usable_cpus(const Cgroup& cgroup, int num_hardware) {
  const std::optional<double> cpus = cgroup_cpus(cgroup);
  const int num_allowed = cpus && *cpus < num_hardware ? static_cast<int>(*cpus) : num_hardware;
  return std::max(1, num_allowed);
}

}  // namespace pbserve::kernels
