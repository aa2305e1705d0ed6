// Runs an io_context on this thread until it stops, whatever handlers throw: for want of memory
// Asio throws wherever it is. What was thrown ends what its handler was for, a connection or a
// wait, and not the process.
#pragma once

#include <boost/asio/io_context.hpp>

namespace pbserve::server {

void run_io(boost::asio::io_context* io);

}  // namespace pbserve::server
