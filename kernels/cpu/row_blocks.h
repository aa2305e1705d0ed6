// Pointwise operations split their rows into blocks that are worth a thread's attention.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/bits.h"
#include "kernels/core/thread_pool.h"

namespace pbserve::kernels::cpu {

// Calls body(row) for every row; rows of `width` elements, handed out some 16k elements at a time
// (a few microseconds: waking a thread costs about as much).
template <class Body>
void for_each_row(int64_t num_rows, int64_t width, ThreadPool& pool, const Body& body) {
  constexpr int64_t kElements = 16384;
  const int64_t rows_per_item = std::max<int64_t>(1, kElements / std::max<int64_t>(1, width));
  pool.parallel_for(ceil_div(num_rows, rows_per_item), [&](int64_t item) {
    const int64_t end = std::min(num_rows, (item + 1) * rows_per_item);
    for (int64_t row = item * rows_per_item; row < end; ++row) body(row);
  });
}

}  // namespace pbserve::kernels::cpu
