// What SIGHUP renews: API keys and TLS files, both or neither.
#pragma once

#include "server/app.h"
#include "server/config/command_line.h"

namespace pbserve::server {

// Reads them as the flags and files have them now; new requests and connections get them. What is
// wrong changes nothing and is logged as an error that names the file.
void reload(const CommandLine& line, App* app);

}  // namespace pbserve::server
