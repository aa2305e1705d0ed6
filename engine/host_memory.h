// How much memory of the host this process may have: for limits on what it holds beside the model.
#pragma once

#include <cstdint>
#include <string>

namespace pbserve::engine {

struct MemoryLimit {
  int64_t bytes = 0;
  std::string name;  // what sets it: "RLIMIT_AS"
};

// The tightest of the machine's memory, the control groups' and RLIMIT_AS.
MemoryLimit host_memory_limit();

}  // namespace pbserve::engine
