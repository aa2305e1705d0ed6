// asio::post for what somebody waits for: tried again until there is memory for it.
#pragma once

#include <boost/asio/post.hpp>

#include "server/run_surely.h"

namespace pbserve::server {

template <class Executor, class Handler>
void post_surely(const Executor& executor, const Handler& handler) {
  run_surely([&] { boost::asio::post(executor, handler); });
}

}  // namespace pbserve::server
