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

void SlicePacer::end_item() {
  Item& launched = item(num_items_);
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
  learn(pace(item.pass), item_ms);
}

// An item between 1/8 and 1/4 of the slice wastes little of it and keeps the operations large.
void SlicePacer::learn(Pace& pace, double item_ms) {
  const int64_t rows = pace.rows;
  if (item_ms > slice_ms_ / 4) {
    pace.rows = std::max<int64_t>(rows / 2, kPbsBlock);
  } else if (item_ms < slice_ms_ / 8) {
    pace.rows = std::min(rows * 2, rows_max_);
  }
  pace.item_ms = item_ms * static_cast<double>(pace.rows) / static_cast<double>(rows);
}

}  // namespace pbserve::engine
