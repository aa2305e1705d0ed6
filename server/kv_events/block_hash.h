// The names of blocks in KV events: 64 bits of a SHA-256 over all that makes a block's K/V. Equal
// blocks have equal names in every process that serves the model under one name.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace pbserve::server {

// What the first block of a chain has in its parent's place. `root` is that of the prefix cache.
uint64_t root_hash(std::string_view model, std::string_view root);

// Not 0, which stands for no block. `parent` is a block's hash or a root's.
uint64_t block_hash(uint64_t parent, std::span<const int32_t> tokens);

}  // namespace pbserve::server
