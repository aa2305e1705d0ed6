// SlicePacer: how much prefill fits between two decode steps. It cuts a lane's work into items of a
// few rows, keeps at most one item queued behind the one that runs, and stops when another item
// like the last would not fit. The rows of an item adapt to the time items take: there is no cost
// model, and no device to know.
#pragma once

#include <array>
#include <cstdint>

#include "engine/request.h"
#include "kernels/core/stream.h"

namespace pbserve::engine {

class SlicePacer {
 public:
  // `rows_max` bounds an item (a multiple of kPbsBlock). The stream outlives the pacer.
  SlicePacer(const kernels::Stream& stream, int64_t rows_max);

  void begin_slice(double slice_ms);
  int64_t item_rows() const { return rows_; }

  // After an item was launched: waits until the item before it has run. False: the slice is over.
  bool continue_slice();

 private:
  void adapt(double item_ms);

  const kernels::Stream& stream_;
  int64_t rows_max_;
  int64_t rows_;
  double slice_ms_ = 0;
  std::array<kernels::Event, 2> marks_;
  int64_t num_items_ = 0;
  Clock::time_point slice_begin_;
  Clock::time_point item_begin_;
};

}  // namespace pbserve::engine
