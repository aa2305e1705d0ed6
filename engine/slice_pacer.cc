#include "engine/slice_pacer.h"

#include <algorithm>
#include <chrono>

#include "kernels/ops/pbs.h"

namespace pbserve::engine {

namespace {

double ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

}  // namespace

SlicePacer::SlicePacer(const kernels::Stream& stream, int64_t rows_max)
    : stream_(stream),
      rows_max_(rows_max),
      rows_(kernels::kPbsBlock),
      marks_{kernels::Event(stream), kernels::Event(stream)} {}

void SlicePacer::begin_slice(double slice_ms) {
  slice_ms_ = slice_ms;
  num_items_ = 0;
  slice_begin_ = item_begin_ = Clock::now();
}

bool SlicePacer::continue_slice() {
  marks_[num_items_ % 2].record(stream_);
  if (++num_items_ > 1) marks_[num_items_ % 2].wait();  // the item before
  const Clock::time_point time = Clock::now();
  const double item_ms = ms_between(item_begin_, time);
  adapt(item_ms);
  item_begin_ = time;
  return ms_between(slice_begin_, time) + item_ms <= slice_ms_;  // another one like it fits
}

// An item between 1/8 and 1/4 of the slice wastes little of it and keeps the operations large.
void SlicePacer::adapt(double item_ms) {
  if (item_ms > slice_ms_ / 4) {
    rows_ = std::max<int64_t>(rows_ / 2, kernels::kPbsBlock);
  } else if (item_ms < slice_ms_ / 8) {
    rows_ = std::min(rows_ * 2, rows_max_);
  }
}

}  // namespace pbserve::engine
