// How many connections a port takes. Where a limit is reached, a connection that is idle makes room
// for a new one: the longest idle of all, or of the address whose limit it is.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace pbserve::server {

struct ConnectionLimits {
  const char* key = "";  // of in_all in the config
  int32_t in_all = 0;
  int32_t per_address = 0;  // server.max_connections_per_address, an address_group(); 0 = none

  // Why a new connection cannot be taken, though idle ones would make room.
  std::string all_busy() const { return absl::StrCat(key, " = ", in_all, " are busy"); }
  std::string address_busy(absl::string_view address) const {
    return absl::StrCat("server.max_connections_per_address = ", per_address, " are busy, all of ",
                        address);
  }
};

}  // namespace pbserve::server
