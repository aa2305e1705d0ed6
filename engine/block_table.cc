#include "engine/block_table.h"

#include <utility>

#include "engine/kv_cache_pool.h"
#include "kernels/core/check.h"

namespace pbserve::engine {

BlockTable::BlockTable(BlockTable&& other) noexcept { *this = std::move(other); }

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  if (this == &other) return *this;
  clear();
  pool_ = other.pool_;
  pages_ = std::exchange(other.pages_, {});
  ticket_ = std::exchange(other.ticket_, {});
  cursor_ = std::exchange(other.cursor_, {});
  return *this;
}

void BlockTable::truncate(int32_t num_pages) {
  check(0 <= num_pages && num_pages <= this->num_pages(), "truncate makes a block table longer");
  if (num_pages < cursor_.num_pages) cursor_ = {};
  if (num_pages == 0) ticket_ = {};
  while (this->num_pages() > num_pages) {
    pool_->release(pages_.back());
    pages_.pop_back();
  }
}

}  // namespace pbserve::engine
