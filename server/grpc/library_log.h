// What the gRPC library has to say, as lines of our log.
#pragma once

namespace pbserve::server {

// From here on; before the first server, so that nothing is written past the log.
void take_library_log();

}  // namespace pbserve::server
