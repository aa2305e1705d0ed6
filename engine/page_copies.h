// PageCopies: copies of pages between device and host beside the running steps, and what has to
// wait for them.
//
// Each direction has a stream of its own, since a bus carries both at once, and its copies go in
// batches of some pages, each with a mark at its end. A batch begins when what the compute stream
// was given before it has run: a page that leaves is written by then, and one that is filled is no
// longer read. It also waits for the batches of the other direction that last touched one of its
// pages or host pages; those of its own go before it anyway. So pages may be handed on while they
// are still being copied, in either direction, and only the steps that use them have to wait: a
// Ticket says for what. Engine thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine/page_memory.h"

namespace pbserve::engine {

enum class CopyTiming : uint8_t {
  kAtOnce,    // launched as soon as a batch is complete; on the CPU it has run then
  kDeferred,  // CPU, for tests: a batch runs when something waits for it, or in run_next()
};

// The last copies of each direction that something waits for: counted batches, 0 = none.
struct CopyTicket {
  uint64_t to_host = 0;
  uint64_t to_device = 0;

  void join(const CopyTicket& other);
};

class PageCopies {
 public:
  // `memory` and `compute` outlive the copies. `poisons`: a page of the device is filled with NaN
  // once it has been copied to the host (CPU only).
  static absl::StatusOr<PageCopies> create(const kernels::Stream& compute, const PageMemory& memory,
                                           int64_t num_pages, int64_t num_host_pages,
                                           CopyTiming timing, bool poisons);

  // Pages of a batch: about 5 ms of a PCIe 5 bus for pages of 16 MB, so that what comes in follows
  // closely what goes out to make room for it.
  static constexpr int32_t kBatchPages = 16;

  // Queued copies run in order of their direction; flush() when the last one has been queued.
  void queue_to_host(int32_t page, int32_t host_page);
  void queue_to_device(int32_t host_page, int32_t page);
  void flush();

  // What a page of the device has to wait for before it is read or written.
  const CopyTicket& ticket(int32_t page) const { return pages_[page]; }
  bool is_done(const CopyTicket& ticket);
  // What the compute stream is given from here on waits.
  void hold_back_compute(const CopyTicket& ticket);

  int64_t num_to_host() const { return to_host_.num_pages; }  // queued since the start
  int64_t num_to_device() const { return to_device_.num_pages; }

  // kDeferred: runs the oldest batch of a direction, and what it waits for.
  void run_next_to_host() { run(to_host_, to_host_.num_done + 1); }
  void run_next_to_device() { run(to_device_, to_device_.num_done + 1); }

 private:
  struct PageCopy {
    int32_t page;
    int32_t host_page;
  };
  struct Batch {
    std::vector<PageCopy> copies{};
    uint64_t after = 0;  // batch of the other direction
    kernels::CopyMark end;
  };
  struct Direction {
    kernels::CopyStream stream;
    std::vector<PageCopy> open{};  // the batch that is being queued
    uint64_t open_after = 0;
    std::deque<Batch> in_flight{};  // batches num_done + 1, ...
    uint64_t num_done = 0;
    std::vector<kernels::CopyMark> spare_marks{};
    int64_t num_pages = 0;

    uint64_t num_launched() const { return num_done + in_flight.size(); }
    uint64_t open_id() const { return num_launched() + 1; }
  };

  PageCopies(const kernels::Stream& compute, const PageMemory& memory, int64_t num_pages,
             int64_t num_host_pages, kernels::CopyStream to_host, kernels::CopyStream to_device,
             CopyTiming timing, bool poisons);

  void queue(Direction& direction, PageCopy copy, uint64_t after);
  void launch(Direction& direction);
  void run(Direction& direction, uint64_t id);
  void copy(const Direction& direction, const Batch& batch) const;
  void settle(Direction& direction);
  bool is_done(Direction& direction, uint64_t id);
  void hold_back_compute(Direction& direction, uint64_t id);
  Direction& other(const Direction& direction) {
    return &direction == &to_host_ ? to_device_ : to_host_;
  }

  const kernels::Stream& compute_;
  const PageMemory& memory_;
  CopyTiming timing_;
  bool poisons_;
  Direction to_host_;
  Direction to_device_;
  std::vector<CopyTicket> pages_;       // by page of the device: the last copies from and to it
  std::vector<CopyTicket> host_pages_;  // by page of the host
};

}  // namespace pbserve::engine
