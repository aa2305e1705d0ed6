// Which multiprocessors (SMs) of a GPU a stream's kernels run on.
#pragma once

#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace pbserve::test {

inline constexpr int64_t kSmsMax = 256;

// Queues a kernel of many more blocks than SMs, each of which keeps its SM busy for a while and
// then counts itself in seen [kSmsMax] int32, by the number of its SM.
void probe_sms(const kernels::Tensor& seen, const kernels::Stream& stream);

// The SMs that such a kernel saw, ascending. Waits for it.
std::vector<int> sms_of(const kernels::Stream& stream);

}  // namespace pbserve::test
