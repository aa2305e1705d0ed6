// Scratch of one thread: floats on cache-line boundaries that grow to the largest size asked for
// and are then reused. Contents do not survive growth.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/bits.h"
#include "kernels/cpu/vec_math.h"

namespace pbserve::kernels::cpu {

class AlignedFloats {
 public:
  float* at_least(int64_t count) {
    const size_t lines = static_cast<size_t>(ceil_div<int64_t>(count, kLanes));
    if (lines_.size() < lines) lines_.resize(lines);
    return data();
  }
  float* data() { return lines_.front().lanes; }

 private:
  struct alignas(64) Line {
    float lanes[kLanes];
  };
  std::vector<Line> lines_ = std::vector<Line>(1);
};

}  // namespace pbserve::kernels::cpu
