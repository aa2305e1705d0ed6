#include "server/run_io.h"

#include <spdlog/spdlog.h>

#include <exception>

namespace pbserve::server {

void run_io(boost::asio::io_context* io) {
  while (true) {
    try {
      io->run();
      return;
    } catch (const std::exception& error) {
      spdlog::debug("a handler threw: {}", error.what());
    }
  }
}

}  // namespace pbserve::server
