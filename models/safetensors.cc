#include "models/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "models/json_reader.h"
#include "models/message.h"

namespace pbserve::models {

static_assert(std::endian::native == std::endian::little, "checkpoints are little-endian");

namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the reference implementation's limit
constexpr size_t kRankMax = 4;
constexpr IntRange kSizeRange{0, std::numeric_limits<int64_t>::max()};

struct StoredType {
  std::string_view name;
  int64_t num_bytes;
};
constexpr std::array<StoredType, 15> kTypes = {{{"BOOL", 1},
                                                {"U8", 1},
                                                {"I8", 1},
                                                {"F8_E4M3", 1},
                                                {"F8_E5M2", 1},
                                                {"U16", 2},
                                                {"I16", 2},
                                                {"F16", 2},
                                                {"BF16", 2},
                                                {"U32", 4},
                                                {"I32", 4},
                                                {"F32", 4},
                                                {"U64", 8},
                                                {"I64", 8},
                                                {"F64", 8}}};

// A list of at most `count_max` sizes from a tensor's entry.
std::vector<int64_t> read_sizes(JsonReader& entry, std::string_view key, size_t count_max) {
  std::vector<int64_t> sizes;
  const nlohmann::json* list = entry.find(key);
  if (list == nullptr || !list->is_array() || list->size() > count_max) {
    entry.fail(key, message("is not a list of at most ", count_max, " sizes"));
    return sizes;
  }
  for (const nlohmann::json& item : *list) {
    const nlohmann::json holder = {{std::string(key), item}};
    JsonReader reader(holder, entry.what());
    sizes.push_back(reader.integer(key, kSizeRange));
    entry.fail(reader.status());
  }
  return sizes;
}

// Bytes the shape takes, or nothing where that overflows.
absl::StatusOr<int64_t> bytes_of(const StoredTensor& tensor, std::string_view what) {
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const StoredType& candidate) {
    return candidate.name == tensor.dtype;
  });
  if (type == kTypes.end()) {
    return invalid(what, ": unknown dtype '", tensor.dtype, "'");
  }
  int64_t bytes = type->num_bytes;
  for (int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return invalid(what, ": shape overflows");
  }
  return bytes;
}

absl::StatusOr<StoredTensor> read_entry(const nlohmann::json& object,
                                        std::span<const std::byte> data, std::string_view what) {
  JsonReader entry(object, std::string(what));
  StoredTensor tensor;
  tensor.dtype = entry.string_or("dtype", "");
  tensor.shape = read_sizes(entry, "shape", kRankMax);
  const std::vector<int64_t> offsets = read_sizes(entry, "data_offsets", 2);
  for (const std::string& key : entry.unread_keys()) entry.fail(key, "is not known");
  RETURN_IF_ERROR(entry.status());

  if (offsets.size() != 2 || offsets[0] > offsets[1] ||
      static_cast<uint64_t>(offsets[1]) > data.size()) {
    return invalid(what, ": 'data_offsets' do not lie within the ", data.size(), " bytes of data");
  }
  ASSIGN_OR_RETURN(const int64_t bytes, bytes_of(tensor, what));
  if (bytes != offsets[1] - offsets[0]) {
    return invalid(what, ": dtype and shape take ", bytes, " bytes, 'data_offsets' ",
                   offsets[1] - offsets[0]);
  }
  tensor.data = data.data() + offsets[0];
  tensor.num_bytes = static_cast<size_t>(bytes);
  return tensor;
}

// Sorted by place, each tensor begins where the one before ends, and the last ends the file.
absl::Status check_coverage(const StoredTensors& tensors, std::span<const std::byte> data,
                            std::string_view what) {
  std::vector<const StoredTensors::value_type*> order;
  for (const auto& item : tensors) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.data, a->second.num_bytes) <
           std::pair(b->second.data, b->second.num_bytes);
  });
  const std::byte* end = data.data();
  for (const auto* item : order) {
    const auto& [name, tensor] = *item;
    if (tensor.data < end) return invalid(what, ": '", name, "' overlaps another tensor");
    if (tensor.data > end) return invalid(what, ": hole before '", name, "'");
    end = tensor.data + tensor.num_bytes;
  }
  const int64_t rest = data.data() + data.size() - end;
  if (rest != 0) return invalid(what, ": ", rest, " bytes belong to no tensor");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StoredTensors> parse_safetensors(std::span<const std::byte> image,
                                                std::string_view what) {
  if (image.size() < kLengthBytes) return invalid(what, ": shorter than a safetensors header");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, image.data(), kLengthBytes);
  const uint64_t room = image.size() - kLengthBytes;
  if (header_bytes > kHeaderBytesMax || header_bytes > room) {
    return invalid(what, ": header of ", header_bytes, " bytes, the limit is ",
                   std::min(kHeaderBytesMax, room));
  }
  const std::string_view text(reinterpret_cast<const char*>(image.data()) + kLengthBytes,
                              header_bytes);
  ASSIGN_OR_RETURN(const nlohmann::json header, parse_json(text, what));
  if (!header.is_object()) return invalid(what, ": the header is not a JSON object");

  const std::span<const std::byte> data = image.subspan(kLengthBytes + header_bytes);
  StoredTensors tensors;
  for (const auto& [name, object] : header.items()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(StoredTensor tensor,
                     read_entry(object, data, message(what, ": tensor '", name, "'")));
    tensors.emplace(name, std::move(tensor));
  }
  RETURN_IF_ERROR(check_coverage(tensors, data, what));
  return tensors;
}

}  // namespace pbserve::models
