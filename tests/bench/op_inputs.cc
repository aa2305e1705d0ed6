#include "tests/bench/op_inputs.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/core/check.h"

namespace pbserve::kernels {

OpInputs::OpInputs(const Stream& stream) : stream_(stream) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (BF16& value : noise_) value = from_f32<BF16>(normal(random));
}

Tensor OpInputs::take(DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor(nullptr, dtype, dims);
  auto buffer =
      DeviceBuffer::create(stream_.device(), static_cast<size_t>(tensor.numel()) * size_of(dtype));
  check(buffer.ok(), buffer.status().ToString());
  memory_.push_back(*std::move(buffer));
  tensor.data = memory_.back().data();
  return tensor;
}

Tensor OpInputs::take_noise(std::initializer_list<int64_t> dims) {
  const Tensor tensor = take(DType::kBF16, dims);
  fill_noise(tensor);
  return tensor;
}

void OpInputs::fill_noise(const Tensor& tensor) {
  const auto size = static_cast<int64_t>(noise_.size());
  constexpr int64_t kStep = 1234577;  // shares no factor with the length: every start is another
  int64_t from = num_noises_++ * kStep % size;
  for (int64_t to = 0; to < tensor.numel();) {
    const int64_t count = std::min(size - from, tensor.numel() - to);
    copy_to_device(tensor.as<BF16>() + to, noise_.data() + from,
                   static_cast<size_t>(count) * sizeof(BF16), stream_);
    to += count;
    from = 0;
  }
}

Tensor OpInputs::take_page_table(int64_t num_rows, int64_t num_columns) {
  std::vector<int32_t> pages(static_cast<size_t>(num_rows * num_columns));
  std::iota(pages.begin(), pages.end(), 0);
  std::ranges::shuffle(pages, std::mt19937(3));
  return take_all(pages, {num_rows, num_columns});
}

}  // namespace pbserve::kernels
