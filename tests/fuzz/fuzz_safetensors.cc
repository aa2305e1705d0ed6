// Any bytes as a safetensors file: an error, or tensors that lie within the bytes.
#include <cstdint>
#include <span>

#include "kernels/core/check.h"
#include "models/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> image = std::as_bytes(std::span(data, size));
  const auto tensors = pbserve::models::parse_safetensors(image, "fuzz");
  if (!tensors.ok()) return 0;
  for (const auto& [name, tensor] : *tensors) {
    pbserve::check(tensor.data >= image.data(), "tensor begins before the file");
    pbserve::check(tensor.data + tensor.num_bytes <= image.data() + image.size(),
                   "tensor ends after the file");
  }
  return 0;
}
