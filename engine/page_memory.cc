#include "engine/page_memory.h"

#include <cstring>
#include <utility>

#include "kernels/core/check.h"

namespace pbserve::engine {

using kernels::kPageSize;

namespace {

// K or V of one page in one layer.
int64_t tile_bytes(const KvCacheShape& shape) {
  return shape.num_kv_heads * kPageSize * shape.head_dim *
         static_cast<int64_t>(size_of(shape.dtype));
}

// The mean of its keys, or their variance, in one layer.
int64_t moment_bytes(const KvCacheShape& shape) { return tile_bytes(shape) / kPageSize; }

// Tiles of a page, and its moments: two each a layer.
int64_t num_rows(const KvCacheShape& shape) { return 2 * shape.num_layers; }

}  // namespace

int64_t KvCacheShape::page_bytes() const {
  return num_rows(*this) * (tile_bytes(*this) + moment_bytes(*this));
}

absl::StatusOr<PageMemory> PageMemory::create(kernels::Device device, const KvCacheShape& shape,
                                              int64_t num_pages, int64_t num_host_pages) {
  const auto bytes_of = [&](int64_t pages) {
    return static_cast<size_t>(pages * shape.page_bytes());
  };
  ASSIGN_OR_RETURN(auto memory, kernels::DeviceBuffer::create(device, bytes_of(num_pages)));
  ASSIGN_OR_RETURN(auto host, kernels::PinnedBuffer::create(device, bytes_of(num_host_pages)));
  return PageMemory(shape, num_pages, std::move(memory), std::move(host));
}

PageMemory::PageMemory(const KvCacheShape& shape, int64_t num_pages, kernels::DeviceBuffer memory,
                       kernels::PinnedBuffer host)
    : shape_(shape), num_pages_(num_pages), memory_(std::move(memory)), host_(std::move(host)) {}

PageMemory::Rows PageMemory::tiles(int32_t page) const {
  const int64_t bytes = tile_bytes(shape_);
  return {.first = memory_.data() + page * bytes, .pitch = num_pages_ * bytes, .row_bytes = bytes};
}

PageMemory::Rows PageMemory::moments(int32_t page) const {
  const int64_t bytes = moment_bytes(shape_);
  std::byte* begin = memory_.data() + num_rows(shape_) * num_pages_ * tile_bytes(shape_);
  return {.first = begin + page * bytes, .pitch = num_pages_ * bytes, .row_bytes = bytes};
}

PageMemory::Rows PageMemory::host_tiles(int32_t host_page) const {
  const int64_t bytes = tile_bytes(shape_);
  return {
      .first = host_.data() + host_page * shape_.page_bytes(), .pitch = bytes, .row_bytes = bytes};
}

PageMemory::Rows PageMemory::host_moments(int32_t host_page) const {
  const int64_t bytes = moment_bytes(shape_);
  std::byte* begin = host_tiles(host_page).first + num_rows(shape_) * tile_bytes(shape_);
  return {.first = begin, .pitch = bytes, .row_bytes = bytes};
}

models::KvPages PageMemory::layer(int64_t index) const {
  check(0 <= index && index < shape_.num_layers, "layer out of range");
  const auto tile_view = [&](int64_t row) {
    const Rows rows = tiles(0);
    return kernels::Tensor(rows.first + row * rows.pitch, shape_.dtype,
                           {num_pages_, shape_.num_kv_heads, kPageSize, shape_.head_dim});
  };
  const auto moments_view = [&](int64_t row) {
    const Rows rows = moments(0);
    return kernels::Tensor(rows.first + row * rows.pitch, shape_.dtype,
                           {num_pages_, shape_.num_kv_heads, shape_.head_dim});
  };
  return {.k = tile_view(2 * index),
          .v = tile_view(2 * index + 1),
          .k_mean = moments_view(2 * index),
          .k_var = moments_view(2 * index + 1)};
}

void PageMemory::poison(int32_t page) const {
  constexpr int kNanByte = 0xff;  // all bits set is a NaN in every float type
  for (const Rows& rows : {tiles(page), moments(page)}) {
    for (int64_t i = 0; i < num_rows(shape_); ++i) {
      std::memset(rows.first + i * rows.pitch, kNanByte, static_cast<size_t>(rows.row_bytes));
    }
  }
}

kernels::RowCopy PageMemory::row_copy(const Rows& to, const Rows& from) const {
  return {.to = to.first,
          .from = from.first,
          .to_pitch = to.pitch,
          .from_pitch = from.pitch,
          .row_bytes = to.row_bytes,
          .num_rows = num_rows(shape_)};
}

void PageMemory::copy_to_host(int32_t page, int32_t host_page,
                              const kernels::CopyStream& stream) const {
  stream.copy_to_host(row_copy(host_tiles(host_page), tiles(page)));
  stream.copy_to_host(row_copy(host_moments(host_page), moments(page)));
}

void PageMemory::copy_to_device(int32_t host_page, int32_t page,
                                const kernels::CopyStream& stream) const {
  stream.copy_to_device(row_copy(tiles(page), host_tiles(host_page)));
  stream.copy_to_device(row_copy(moments(page), host_moments(host_page)));
}

}  // namespace pbserve::engine
