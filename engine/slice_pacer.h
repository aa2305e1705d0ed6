// SlicePacer: how much prefill fits between two decode steps. It cuts a lane's work into items of a
// few rows, keeps at most one item queued behind the one that runs, and stops when the next one
// would not fit. What an item of a pass takes is learnt from those before it, in device time: there
// is no cost model, and no device to know.
#pragma once

#include <array>
#include <cstdint>

#include "engine/step.h"
#include "kernels/core/stream.h"

namespace pbserve::engine {

class SlicePacer {
 public:
  // `rows_max` bounds an item (a multiple of kPbsBlock). The stream outlives the pacer.
  SlicePacer(const kernels::Stream& stream, int64_t rows_max);

  void begin_slice(double slice_ms);

  // Around the launch of an item: how many rows it may have; how many it had. The second waits
  // until the item before it has run.
  int64_t begin_item(PrefillPass pass);
  void end_item(int64_t num_rows);

  // Whether an item of this pass still fits into the slice.
  bool fits(PrefillPass next) const;

 private:
  struct Pace {
    int64_t rows;
    double item_ms = 0;  // expected of an item of so many rows; 0 before the first
  };
  struct Item {
    kernels::Event begin;
    kernels::Event end;
    PrefillPass pass = PrefillPass::kProject;
    int64_t num_rows = 0;
    int64_t slice = 0;
    bool is_in_flight = false;  // launched and not measured
  };

  void measure(Item& item);
  Item& item(int64_t number) { return items_[static_cast<size_t>(number % 2)]; }
  void learn(Pace& pace, int64_t num_rows, double item_ms);
  Pace& pace(PrefillPass pass) { return paces_[static_cast<size_t>(pass)]; }
  double item_ms(PrefillPass pass) const { return paces_[static_cast<size_t>(pass)].item_ms; }

  const kernels::Stream& stream_;
  int64_t rows_max_;
  std::array<Pace, kNumPrefillPasses> paces_;
  std::array<Item, 2> items_;  // the last two, by number
  int64_t num_items_ = 0;
  int64_t slice_ = 0;
  double slice_ms_ = 0;
  double spent_ms_ = 0;  // by the measured items of this slice
};

}  // namespace pbserve::engine
