#include "models/weight_source.h"

#include <cstring>
#include <type_traits>

#include "absl/strings/str_join.h"
#include "kernels/core/check.h"
#include "models/message.h"
#include "models/parameter_names.h"

namespace pbserve::models {

using kernels::BF16;
using kernels::DType;
using kernels::from_f32;

namespace {

// IEEE half as a checkpoint stores it.
struct F16 {
  uint16_t bits;
};
float value_of(F16 value) { return kernels::f16_bits_to_f32(value.bits); }
float value_of(BF16 value) { return kernels::to_f32(value); }
float value_of(float value) { return value; }

// `from` may be unaligned: a file's header has any length.
template <class From, class To>
void convert(const std::byte* from, int64_t count, To* to) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(To));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, from + i * static_cast<int64_t>(sizeof(From)), sizeof(From));
    to[i] = from_f32<To>(value_of(value));
  }
}

template <class To>
void convert_stored(const StoredTensor& tensor, int64_t begin, int64_t count, To* to) {
  const auto source = [&](size_t size) { return tensor.data + begin * static_cast<int64_t>(size); };
  if (tensor.dtype == "F32") return convert<float>(source(4), count, to);
  if (tensor.dtype == "BF16") return convert<BF16>(source(2), count, to);
  check(tensor.dtype == "F16", "dtype was checked by require()");
  convert<F16>(source(2), count, to);
}

// Calls body with `out` under its static type.
template <class Body>
void with_type(DType dtype, void* out, const Body& body) {
  if (dtype == DType::kF32) return body(static_cast<float*>(out));
  check(dtype == DType::kBF16, "weights are float32 or bfloat16");
  body(static_cast<BF16*>(out));
}

}  // namespace

CheckpointSource::CheckpointSource(Checkpoint checkpoint, Options options)
    : checkpoint_(std::move(checkpoint)), options_(options) {}

absl::Status CheckpointSource::require(const std::string& name, std::span<const int64_t> shape) {
  required_.insert(name);
  const auto found = checkpoint_.tensors().find(name);
  if (found == checkpoint_.tensors().end()) {
    return absl::NotFoundError(message(checkpoint_.folder(), ": tensor '", name, "' is missing"));
  }
  const StoredTensor& tensor = found->second;
  const std::string what = message(checkpoint_.folder(), ": tensor '", name, "' ");
  if (tensor.dtype != "F32" && tensor.dtype != "F16" && tensor.dtype != "BF16") {
    return invalid(what, "is ", tensor.dtype, ", expected BF16, F16 or F32");
  }
  if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end())) {
    return invalid(what, "has shape [", absl::StrJoin(tensor.shape, ", "), "], expected [",
                   absl::StrJoin(shape, ", "), "]");
  }
  return absl::OkStatus();
}

absl::Status CheckpointSource::refuse_surplus() const {
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    // Old exports carry the rotary frequencies, which follow from config.json.
    if (required_.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
    const std::string what = message(checkpoint_.folder(), ": tensor '", name, "' ");
    if (name != kLmHeadName || !options_.tied_embeddings) {
      return invalid(what, "has no place in this model");
    }
    const StoredTensor& embedding = checkpoint_.tensors().find(kEmbeddingName)->second;
    if (tensor.num_bytes != embedding.num_bytes ||
        std::memcmp(tensor.data, embedding.data, tensor.num_bytes) != 0) {
      return invalid(what,
                     "differs from the embedding although config.json ties them; to use it pass "
                     "--hf-overrides '{\"tie_word_embeddings\": false}'");
    }
  }
  return absl::OkStatus();
}

void CheckpointSource::read(const std::string& name, int64_t begin, int64_t count, DType dtype,
                            void* out) const {
  const StoredTensor& tensor = checkpoint_.tensors().find(name)->second;
  with_type(dtype, out, [&](auto* to) { convert_stored(tensor, begin, count, to); });
}

namespace {

// FNV-1a.
uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

// SplitMix64 (Steele, Lea, Flood 2014) at position `counter` of the stream `key`.
uint64_t random_bits(uint64_t key, uint64_t counter) {
  uint64_t z = key + (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// The sum of four 16-bit uniforms is close to normal, with mean 131,070 and deviation 37,837.
float normalish(uint64_t bits, float deviation) {
  const uint64_t sum =
      (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
  return (static_cast<float>(sum) - 131070.0f) * (deviation / 37837.0f);
}

}  // namespace

void DummySource::read(const std::string& name, int64_t begin, int64_t count, DType dtype,
                       void* out) const {
  constexpr float kDeviation = 0.02f;  // initializer_range of most models
  const bool is_norm = name.ends_with("norm.weight");
  const uint64_t key = hash_name(name) ^ random_bits(seed_, 0);
  with_type(dtype, out, [&](auto* to) {
    using To = std::remove_pointer_t<decltype(to)>;
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t bits = random_bits(key, static_cast<uint64_t>(begin + i));
      to[i] = from_f32<To>(is_norm ? 1.0f : normalish(bits, kDeviation));
    }
  });
}

}  // namespace pbserve::models
