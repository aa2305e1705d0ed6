// Whether the process runs out of descriptors, which are one pool for all its ports and files.
#pragma once

#include <cstdint>
#include <optional>

namespace pbserve::server {

// By whoever was refused one. Any thread.
void note_descriptors_used_up();
// Since the last note; infinite before the first one.
double s_since_descriptors_used_up();

// Nothing where they cannot be counted. Walks over all that are open.
std::optional<int64_t> num_open_descriptors();
// Below RLIMIT_NOFILE; 0 where those that are open cannot be counted.
int64_t num_free_descriptors();

}  // namespace pbserve::server
