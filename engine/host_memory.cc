#include "engine/host_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include "kernels/core/cgroup.h"

namespace pbserve::engine {

MemoryLimit host_memory_limit() {
  MemoryLimit limit{.bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE),
                    .name = "the machine's memory"};
  const auto tighten = [&limit](int64_t bytes, const char* name) {
    if (bytes < limit.bytes) limit = {.bytes = bytes, .name = name};
  };
  if (const auto memory = kernels::cgroup_memory(kernels::own_cgroup())) {
    tighten(memory->limit_bytes, "the control group's memory limit");
  }
  rlimit address_space{};
  if (getrlimit(RLIMIT_AS, &address_space) == 0 &&
      address_space.rlim_cur < static_cast<rlim_t>(limit.bytes)) {
    tighten(static_cast<int64_t>(address_space.rlim_cur), "RLIMIT_AS");
  }
  return limit;
}

}  // namespace pbserve::engine
