// CacheListener: hears which pages join and leave the prefix cache, so that routers can be told.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pbserve::engine {

// Where the K/V of a cached page live.
enum class Tier : uint8_t { kDevice, kHost };
inline constexpr int kNumTiers = 2;

// The root of a chain of cached pages: how the K/V were made, and for whom.
struct CacheRoot {
  std::string_view made_by;  // "dense", the signature of PBS, or "any" with pbs.prefix_reuse any
  std::string_view salt;     // the request's cache_salt

  std::string text() const { return std::string(made_by) + '|' + std::string(salt); }
  // Of what text() returns: made_by holds no bar.
  static CacheRoot parse(std::string_view text) {
    const size_t bar = text.find('|');
    return {text.substr(0, bar), bar == text.npos ? text.substr(0, 0) : text.substr(bar + 1)};
  }
};

// Called on the engine's thread between its steps: must not block, must not throw.
class CacheListener {
 public:
  virtual ~CacheListener() = default;

  // A page of `tokens` joined the cache, under the root or under the block `parent`; 0: under the
  // root. Returns the block's hash: not 0, the same for the same content, parent and root.
  virtual uint64_t on_stored(std::string_view root, uint64_t parent,
                             std::span<const int32_t> tokens, Tier tier) = 0;

  // The block left that tier.
  virtual void on_removed(std::string_view root, uint64_t hash, Tier tier) = 0;
};

}  // namespace pbserve::engine
