// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011): a counter generator. The same (key, counter) gives the same numbers on host and device,
// in any order, with no state.
#pragma once

#include <cstdint>

#include "kernels/core/bits.h"

namespace pbserve::kernels {

struct PhiloxBlock {
  uint32_t x[4];
};

PBSERVE_HOST_DEVICE constexpr PhiloxBlock philox(uint64_t key, PhiloxBlock counter) {
  constexpr int kRounds = 10;
  uint32_t key_lo = static_cast<uint32_t>(key);
  uint32_t key_hi = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter.x[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter.x[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.x[1] ^ key_lo, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.x[3] ^ key_hi, static_cast<uint32_t>(a)}};
    key_lo += 0x9E3779B9u;
    key_hi += 0xBB67AE85u;
  }
  return counter;
}

// 64 uniform bits for the draw of one token: `position` is the token's own, `seed` the request's.
PBSERVE_HOST_DEVICE constexpr uint64_t philox_bits(uint64_t seed, uint32_t position) {
  const PhiloxBlock block = philox(seed, {{position, 0, 0, 0}});
  return uint64_t{block.x[1]} << 32 | block.x[0];
}

}  // namespace pbserve::kernels
