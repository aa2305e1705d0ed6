// PageMemory: the bytes of the KV cache's pages, on the device and in the host tier, and how they
// lie there. Knows nothing of who holds a page.
#pragma once

#include <cstdint>

#include "kernels/core/buffer.h"
#include "kernels/core/copy_stream.h"
#include "models/forward_input.h"

namespace pbserve::engine {

struct KvCacheShape {
  int64_t num_layers = 1;
  int64_t num_kv_heads = 1;
  int64_t head_dim = 1;
  kernels::DType dtype = kernels::DType::kBF16;

  int64_t page_bytes() const;  // K, V and the keys' moments of one page, all layers
};

class PageMemory {
 public:
  // kResourceExhausted names the bytes that cannot be had. Takes `num_host_pages` of pinned memory
  // on the host, which takes a second for some gigabytes: the system clears them.
  static absl::StatusOr<PageMemory> create(kernels::Device device, const KvCacheShape& shape,
                                           int64_t num_pages, int64_t num_host_pages);

  const KvCacheShape& shape() const { return shape_; }

  // This layer's pages, all of them.
  models::KvPages layer(int64_t index) const;

  // Fills a page of the device with NaN. REQUIRES: the device is the CPU.
  void poison(int32_t page) const;

  // One page, all layers; two launches.
  void copy_to_host(int32_t page, int32_t host_page, const kernels::CopyStream& stream) const;
  void copy_to_device(int32_t host_page, int32_t page, const kernels::CopyStream& stream) const;

 private:
  // Where a page's tiles (K and V of each layer) lie, or its moments: rows, each in one piece.
  struct Rows {
    std::byte* first = nullptr;
    int64_t pitch = 0;
    int64_t row_bytes = 0;
  };

  PageMemory(const KvCacheShape& shape, int64_t num_pages, kernels::DeviceBuffer memory,
             kernels::PinnedBuffer host);

  Rows tiles(int32_t page) const;
  Rows moments(int32_t page) const;
  Rows host_tiles(int32_t host_page) const;
  Rows host_moments(int32_t host_page) const;
  kernels::RowCopy row_copy(const Rows& to, const Rows& from) const;

  KvCacheShape shape_;
  int64_t num_pages_ = 0;
  // K and V [num_layers, 2, num_pages, Hkv, kPageSize, D], then the mean and the variance of each
  // page's keys [num_layers, 2, num_pages, Hkv, D].
  kernels::DeviceBuffer memory_;
  // [num_host_pages]: of each page K and V [num_layers, 2, Hkv, kPageSize, D], then the moments
  // [num_layers, 2, Hkv, D].
  kernels::PinnedBuffer host_;
};

}  // namespace pbserve::engine
