// asio::post for what somebody waits for: where there is no memory for it, it is tried again until
// there is. The thread stands still meanwhile; without memory there is nothing better to do.
#pragma once

#include <boost/asio/post.hpp>
#include <chrono>
#include <new>
#include <thread>

namespace pbserve::server {

template <class Executor, class Handler>
void post_surely(const Executor& executor, const Handler& handler) {
  constexpr auto kPause = std::chrono::milliseconds(10);
  while (true) {
    try {
      boost::asio::post(executor, handler);
      return;
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace pbserve::server
