// What the log says once the engine is there: limits, warnings, and a request to try.
#pragma once

#include <cstdint>

#include "server/app.h"

namespace pbserve::server {

void log_limits(const App& app);
void log_example(const App& app, uint16_t http_port);

}  // namespace pbserve::server
