#include "server/tracing/trace_context.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace pbserve::server {
namespace {

// "00-" trace id "-" parent id "-" flags.
constexpr size_t kLength = 55;
constexpr uint8_t kSampledFlag = 1;

bool is_lower_hex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
  });
}

template <size_t N>
bool read_hex(absl::string_view text, std::array<uint8_t, N>* bytes) {
  if (text.size() != 2 * N || !is_lower_hex(text)) return false;
  const std::string decoded = absl::HexStringToBytes(text);
  std::copy(decoded.begin(), decoded.end(), bytes->begin());
  return true;
}

bool is_zero(std::span<const uint8_t> id) {
  return std::all_of(id.begin(), id.end(), [](uint8_t byte) { return byte == 0; });
}

template <class Id>
Id random_id() {
  static_assert(std::tuple_size_v<Id> % sizeof(uint32_t) == 0);
  static thread_local std::random_device source;
  Id id{};
  while (is_zero(id)) {
    for (size_t i = 0; i < id.size(); i += sizeof(uint32_t)) {
      const uint32_t bits = source();
      std::memcpy(&id[i], &bits, sizeof(bits));
    }
  }
  return id;
}

template <class Id>
std::string hex(const Id& id) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(id.data()), id.size()});
}

}  // namespace

std::optional<TraceContext> parse_traceparent(absl::string_view value) {
  if (value.size() < kLength || value[2] != '-' || value[35] != '-' || value[52] != '-') {
    return std::nullopt;
  }
  std::array<uint8_t, 1> version{};
  std::array<uint8_t, 1> flags{};
  TraceContext context;
  const bool is_read = read_hex(value.substr(0, 2), &version) &&
                       read_hex(value.substr(3, 32), &context.trace_id) &&
                       read_hex(value.substr(36, 16), &context.parent_span_id) &&
                       read_hex(value.substr(53, 2), &flags);
  if (!is_read || version[0] == 0xff) return std::nullopt;
  const bool has_more = value.size() > kLength;
  if (has_more && (version[0] == 0 || value[kLength] != '-')) return std::nullopt;
  if (is_zero(context.trace_id) || is_zero(context.parent_span_id)) return std::nullopt;
  context.is_sampled = (flags[0] & kSampledFlag) != 0;
  return context;
}

TraceContext new_trace() {
  return {.trace_id = random_id<TraceId>(), .parent_span_id = {}, .is_sampled = true};
}

SpanId make_span_id() { return random_id<SpanId>(); }

std::string to_hex(const TraceId& id) { return hex(id); }
std::string to_hex(const SpanId& id) { return hex(id); }

}  // namespace pbserve::server
