// What SIGHUP renews: API keys and TLS files, both or neither. TLS comes first: a connection that
// is made in between has the new certificate, and its request the old keys.
#pragma once

#include "server/app.h"
#include "server/config/command_line.h"

namespace pbserve::server {

// Reads them as the flags and files have them now; new requests and connections get them. What is
// wrong changes nothing and is logged as an error that names the file; so is a list of keys that
// has become empty, which would let everybody in. Asks no name server.
void reload(const CommandLine& line, App* app);

}  // namespace pbserve::server
