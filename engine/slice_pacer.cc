#include "engine/slice_pacer.h"

#include <algorithm>

#include "kernels/ops/pbs.h"

namespace pbserve::engine {

using kernels::Event;
using kernels::kPbsBlock;

SlicePacer::SlicePacer(const kernels::Stream& stream, int64_t rows_max)
    : stream_(stream),
      rows_max_(rows_max),
      items_{Item{.begin = Event(stream), .end = Event(stream)},
             Item{.begin = Event(stream), .end = Event(stream)}} {
  paces_.fill({.rows = kPbsBlock});
}

void SlicePacer::begin_slice(double slice_ms) {
  slice_ms_ = slice_ms;
  spent_ms_ = 0;
  ++slice_;
}

int64_t SlicePacer::begin_item(PrefillPass pass) {
  Item& starting = item(num_items_);
  starting.pass = pass;
  starting.slice = slice_;
  starting.is_in_flight = true;
  starting.begin.record(stream_);
  return pace(pass).rows;
}

void SlicePacer::end_item(int64_t num_rows) {
  Item& launched = item(num_items_);
  launched.num_rows = num_rows;
  Item& before = item(num_items_ + 1);
  launched.end.record(stream_);
  ++num_items_;
  if (before.is_in_flight) measure(before);
  if (launched.end.is_reached()) measure(launched);
}

bool SlicePacer::fits(PrefillPass next) const {
  double expected_ms = spent_ms_ + item_ms(next);
  for (const Item& item : items_) {
    if (item.is_in_flight) expected_ms += item_ms(item.pass);
  }
  return expected_ms <= slice_ms_;
}

void SlicePacer::measure(Item& item) {
  item.end.wait();
  item.is_in_flight = false;
  const double item_ms = item.end.ms_since(item.begin);
  if (item.slice == slice_) spent_ms_ += item_ms;
  learn(pace(item.pass), item.num_rows, item_ms);
}

// An item between 1/8 and 1/4 of the slice wastes little of it and keeps the operations large. The
// rest of a job, shorter than an item, says little of what a whole one takes.
void SlicePacer::learn(Pace& pace, int64_t num_rows, double item_ms) {
  const bool is_rest = 2 * num_rows < pace.rows;
  if (is_rest && pace.item_ms > 0) return;
  const double row_ms = item_ms / static_cast<double>(num_rows);
  const double whole_ms = row_ms * static_cast<double>(pace.rows);
  if (whole_ms > slice_ms_ / 4) {
    pace.rows = std::max<int64_t>(pace.rows / 2, kPbsBlock);
  } else if (whole_ms < slice_ms_ / 8) {
    pace.rows = std::min(pace.rows * 2, rows_max_);
  }
  pace.item_ms = row_ms * static_cast<double>(pace.rows);
}

}  // namespace pbserve::engine
