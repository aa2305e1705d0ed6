// What a container, or a service with limits, may use of its machine: Linux control groups, of
// version 2 (one tree) and 1 (a tree per resource). Every level between the tree's root and the
// process may set a limit; the tightest holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pbserve::kernels {

struct Cgroup {
  std::string root = "/sys/fs/cgroup";  // where the trees are mounted
  std::string own;                      // the text of /proc/self/cgroup
};

// This process's.
Cgroup own_cgroup();

struct CgroupMemory {
  int64_t limit_bytes;
  int64_t free_bytes;  // of the limit. Page cache that was not touched of late counts as free: the
                       // kernel drops it before it refuses memory
};
// Nothing where no level sets a limit.
std::optional<CgroupMemory> cgroup_memory(const Cgroup& cgroup);

// CPUs that the process may keep busy; 1.5 is one and a half. Nothing where there is no quota.
std::optional<double> cgroup_cpus(const Cgroup& cgroup);

// Threads worth having on `num_hardware` CPUs: those that the quota keeps running, and at least
// one. More would be stopped together in the middle of a product.
int num_usable_cpus(const Cgroup& cgroup, int num_hardware);

}  // namespace pbserve::kernels
