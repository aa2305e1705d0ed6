#include "engine/salt_pages.h"

#include <algorithm>

#include "kernels/core/check.h"

namespace pbserve::engine {

SaltPages::Salts::iterator SaltPages::find_or_add(std::string_view salt) {
  const auto found = salts_.find(salt);
  return found != salts_.end() ? found : salts_.emplace(salt, Salt{}).first;
}

void SaltPages::add_page(Salts::iterator salt) {
  --num_salts_with_[salt->second.num_pages];
  ++num_salts_with_[++salt->second.num_pages];
  num_largest_ = std::max(num_largest_, salt->second.num_pages);
}

// Of two that have most one is left; the only one has one page less, and still most.
void SaltPages::remove_page(Salts::iterator salt) {
  check(salt->second.num_pages > 0, "a page less than the salt has");
  --num_salts_with_[salt->second.num_pages];
  ++num_salts_with_[--salt->second.num_pages];
  if (num_salts_with_[num_largest_] == 0 && num_largest_ > 0) --num_largest_;
  if (salt->second.num_pages == 0) salts_.erase(salt);
}

void SaltPages::check_integrity() const {
  int32_t num_largest = 0;
  for (const auto& [name, salt] : salts_) {
    check(salt.num_pages > 0, "a salt without pages");
    num_largest = std::max(num_largest, salt.num_pages);
  }
  check_eq(num_largest, num_largest_, "pages of the largest salt");
}

}  // namespace pbserve::engine
