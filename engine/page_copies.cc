#include "engine/page_copies.h"

#include <algorithm>
#include <utility>

#include "kernels/core/check.h"

namespace pbserve::engine {

void CopyTicket::join(const CopyTicket& other) {
  to_host = std::max(to_host, other.to_host);
  to_device = std::max(to_device, other.to_device);
}

absl::StatusOr<PageCopies> PageCopies::create(const kernels::Stream& compute,
                                              const PageMemory& memory, int64_t num_pages,
                                              int64_t num_host_pages, CopyTiming timing,
                                              bool poisons) {
  ASSIGN_OR_RETURN(auto to_host, kernels::CopyStream::create(compute.device()));
  ASSIGN_OR_RETURN(auto to_device, kernels::CopyStream::create(compute.device()));
  return PageCopies(compute, memory, num_pages, num_host_pages, std::move(to_host),
                    std::move(to_device), timing, poisons);
}

PageCopies::PageCopies(const kernels::Stream& compute, const PageMemory& memory, int64_t num_pages,
                       int64_t num_host_pages, kernels::CopyStream to_host,
                       kernels::CopyStream to_device, CopyTiming timing, bool poisons)
    : compute_(compute),
      memory_(memory),
      timing_(timing),
      poisons_(poisons),
      to_host_{.stream = std::move(to_host)},
      to_device_{.stream = std::move(to_device)},
      pages_(static_cast<size_t>(num_pages)),
      host_pages_(static_cast<size_t>(num_host_pages)) {}

void PageCopies::queue_to_host(int32_t page, int32_t host_page) {
  const uint64_t after = std::max(pages_[page].to_device, host_pages_[host_page].to_device);
  const uint64_t id = to_host_.open_id();
  pages_[page].to_host = id;
  host_pages_[host_page].to_host = id;
  queue(to_host_, {page, host_page}, after);
}

void PageCopies::queue_to_device(int32_t host_page, int32_t page) {
  const uint64_t after = std::max(pages_[page].to_host, host_pages_[host_page].to_host);
  const uint64_t id = to_device_.open_id();
  pages_[page].to_device = id;
  host_pages_[host_page].to_device = id;
  queue(to_device_, {page, host_page}, after);
}

void PageCopies::queue(Direction& direction, PageCopy copy, uint64_t after) {
  // Of two open batches neither waits for the other: what is to come first is launched first.
  if (after > other(direction).num_launched()) launch(other(direction));
  direction.open.push_back(copy);
  direction.open_after = std::max(direction.open_after, after);
  ++direction.num_pages;
  if (std::ssize(direction.open) == kBatchPages) launch(direction);
}

void PageCopies::flush() {
  launch(to_host_);
  launch(to_device_);
}

void PageCopies::launch(Direction& direction) {
  if (direction.open.empty()) return;
  settle(direction);
  std::vector<kernels::CopyMark>& marks = direction.spare_marks;
  if (marks.empty()) marks.emplace_back(direction.stream);
  direction.in_flight.push_back({.copies = std::exchange(direction.open, {}),
                                 .after = std::exchange(direction.open_after, 0),
                                 .end = std::move(marks.back())});
  marks.pop_back();
  if (timing_ == CopyTiming::kDeferred) return;
  Batch& batch = direction.in_flight.back();
  direction.stream.wait_for(compute_);
  Direction& before = other(direction);
  if (!is_done(before, batch.after)) {
    direction.stream.wait_for(before.in_flight[batch.after - before.num_done - 1].end);
  }
  copy(direction, batch);
  batch.end.record(direction.stream);
}

void PageCopies::copy(const Direction& direction, const Batch& batch) const {
  for (const PageCopy& what : batch.copies) {
    if (&direction == &to_device_) {
      memory_.copy_to_device(what.host_page, what.page, direction.stream);
      continue;
    }
    memory_.copy_to_host(what.page, what.host_page, direction.stream);
    if (poisons_) memory_.poison(what.page);
  }
}

void PageCopies::run(Direction& direction, uint64_t id) {
  while (direction.num_done < id && !direction.in_flight.empty()) {
    const Batch& batch = direction.in_flight.front();
    run(other(direction), batch.after);
    copy(direction, batch);
    direction.spare_marks.push_back(std::move(direction.in_flight.front().end));
    direction.in_flight.pop_front();
    ++direction.num_done;
  }
}

void PageCopies::settle(Direction& direction) {
  if (timing_ == CopyTiming::kDeferred) return;
  while (!direction.in_flight.empty() && direction.in_flight.front().end.is_reached()) {
    direction.spare_marks.push_back(std::move(direction.in_flight.front().end));
    direction.in_flight.pop_front();
    ++direction.num_done;
  }
}

bool PageCopies::is_done(Direction& direction, uint64_t id) {
  check(id <= direction.num_launched(), "a copy was queued and not flushed");
  if (id > direction.num_done) settle(direction);
  return id <= direction.num_done;
}

bool PageCopies::is_done(const CopyTicket& ticket) {
  return is_done(to_host_, ticket.to_host) && is_done(to_device_, ticket.to_device);
}

void PageCopies::hold_back_compute(Direction& direction, uint64_t id) {
  if (is_done(direction, id)) return;
  if (timing_ == CopyTiming::kDeferred) return run(direction, id);
  direction.in_flight[id - direction.num_done - 1].end.hold_back(compute_);
}

void PageCopies::hold_back_compute(const CopyTicket& ticket) {
  hold_back_compute(to_host_, ticket.to_host);
  hold_back_compute(to_device_, ticket.to_device);
}

}  // namespace pbserve::engine
