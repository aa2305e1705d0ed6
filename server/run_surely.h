// For what others wait for: again and again until there is memory for it. The thread stands still
// meanwhile; without memory there is nothing better to do.
#pragma once

#include <chrono>
#include <new>
#include <thread>

namespace pbserve::server {

// `work` throws std::bad_alloc only before it has changed anything.
template <class Work>
void run_surely(const Work& work) {
  constexpr auto kPause = std::chrono::milliseconds(10);
  while (true) {
    try {
      return work();
    } catch (const std::bad_alloc&) {
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace pbserve::server
