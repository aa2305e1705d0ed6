#include "server/kv_events/block_hash.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <string>

namespace pbserve::server {
namespace {

void append_big_endian(uint64_t value, int num_bytes, std::string* bytes) {
  for (int shift = 8 * (num_bytes - 1); shift >= 0; shift -= 8) {
    bytes->push_back(static_cast<char>(value >> shift));
  }
}

uint64_t first_bytes_of_sha256(std::string_view bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(value); ++i) value = value << 8 | digest[i];
  return std::max<uint64_t>(value, 1);
}

}  // namespace

uint64_t root_hash(std::string_view model, std::string_view root) {
  std::string bytes;  // the length keeps model and root apart
  append_big_endian(model.size(), 8, &bytes);
  bytes += model;
  bytes += root;
  return first_bytes_of_sha256(bytes);
}

uint64_t block_hash(uint64_t parent, std::span<const int32_t> tokens) {
  std::string bytes;
  bytes.reserve(sizeof(parent) + tokens.size_bytes());
  append_big_endian(parent, 8, &bytes);
  for (const int32_t token : tokens) append_big_endian(static_cast<uint32_t>(token), 4, &bytes);
  return first_bytes_of_sha256(bytes);
}

}  // namespace pbserve::server
