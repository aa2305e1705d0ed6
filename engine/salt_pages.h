// SaltPages: how many cached pages each cache salt has, in whatever tier. A salt is a tenant: what
// an operator wants to know is how many there are and whether one takes all. O(1) a page; memory is
// fixed by the number of pages, but for the names. Engine thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace pbserve::engine {

class SaltPages {
 public:
  struct Salt {
    int32_t num_pages = 0;
  };
  using Salts = std::map<std::string, Salt, std::less<>>;

  explicit SaltPages(size_t num_pages_max) : num_salts_with_(num_pages_max + 1, 0) {}

  // Stays valid while the salt has pages; it may have none until add_page().
  Salts::iterator find_or_add(std::string_view salt);
  void add_page(Salts::iterator salt);
  void remove_page(Salts::iterator salt);

  int32_t num_salts() const { return static_cast<int32_t>(salts_.size()); }
  int32_t num_largest() const { return num_largest_; }  // pages of the salt that has most
  const Salts& salts() const { return salts_; }

  // Dies if the number of the largest contradicts those of all.
  void check_integrity() const;

 private:
  Salts salts_;
  std::vector<int32_t> num_salts_with_;  // by number of pages
  int32_t num_largest_ = 0;
};

}  // namespace pbserve::engine
