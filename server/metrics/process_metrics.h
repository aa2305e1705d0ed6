// What the process itself takes, under the names that every Prometheus client library uses:
// process_resident_memory_bytes, process_open_fds, process_cpu_seconds_total...
#pragma once

#include <string>

namespace pbserve::server {

// Prometheus text format, as /proc/self has it now. What cannot be read is left out.
std::string render_process_metrics();

}  // namespace pbserve::server
