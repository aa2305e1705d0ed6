#include "kernels/ops/linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <vector>

#include "tests/reference/ops_ref.h"
#include "tests/support/backends.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::LinearWeight;
using kernels::Stream;
using kernels::Tensor;

// A packed weight and the memory it lies in.
struct Packed {
  kernels::DeviceBuffer buffer;
  LinearWeight weight;
};

Packed take_packed(DType dtype, int64_t num_out, int64_t num_in, const Stream& stream) {
  const int64_t numel = kernels::packed_weight_numel(stream.device(), num_out, num_in);
  auto buffer = kernels::DeviceBuffer::create(stream.device(),
                                              static_cast<size_t>(numel) * kernels::size_of(dtype));
  check(buffer.ok(), buffer.status().ToString());
  Packed packed{.buffer = *std::move(buffer), .weight = {}};
  packed.weight = {
      .packed = Tensor(packed.buffer.data(), dtype, {numel}), .num_out = num_out, .num_in = num_in};
  return packed;
}

Packed pack(const HostTensor& w, const Stream& stream) {
  Packed packed = take_packed(w.view().dtype, w.view().dim(0), w.view().dim(1), stream);
  pack_weight({.weight = packed.weight, .rows = w.view(), .row_begin = 0}, stream);
  return packed;
}

HostTensor run(const HostTensor& x, const LinearWeight& weight, const HostTensor* bias,
               DType y_type, const Stream& stream) {
  const DeviceTensor device_x(x, stream);
  const DeviceTensor y(poisoned(y_type, {x.view().dim(0), weight.num_out}), stream);
  std::optional<DeviceTensor> device_bias;
  if (bias != nullptr) device_bias.emplace(*bias, stream);
  linear({.y = y.view(),
          .x = device_x.view(),
          .weight = weight,
          .bias = device_bias ? device_bias->view() : Tensor()},
         stream);
  return y.read();
}

class LinearTest : public ::testing::TestWithParam<Backend> {
 protected:
  bool is_cuda() const { return stream_.is_cuda(); }

  // Streams of a backend that promise equal bits.
  std::vector<Stream> deterministic_streams() const {
    std::vector<Stream> streams;
    for (int threads = 1; threads <= (is_cuda() ? 1 : 3); ++threads) {
      auto stream = Stream::create(GetParam().device, threads, kernels::Determinism::kOn);
      check(stream.ok(), stream.status().ToString());
      streams.push_back(*std::move(stream));
    }
    return streams;
  }

  std::mt19937 random_{11};
  Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, LinearTest, ::testing::ValuesIn(backends()), backend_name);

// Values that `dtype` can hold.
void round(HostTensor& values, DType dtype) {
  if (dtype != DType::kBF16) return;
  for (int64_t i = 0; i < values.view().numel(); ++i) {
    values.set(i, kernels::to_f32(kernels::from_f32<kernels::BF16>(values.view().as<float>()[i])));
  }
}

struct Shape {
  int64_t rows, num_out, num_in;
};
constexpr Shape kShapes[] = {{1, 1, 1},      {1, 64, 64},    {2, 65, 63},     {3, 127, 512},
                             {5, 7, 3},      {6, 128, 513},  {13, 257, 1025}, {97, 130, 600},
                             {193, 577, 17}, {1, 1031, 509}, {129, 256, 1024}};

TEST_P(LinearTest, ThePackedFormIsTheMatrixWhereItSaysSo) {
  const HostTensor w = random_tensor(DType::kBF16, {65, 24}, random_);
  const Packed packed = pack(w, stream_);
  const auto num_bytes = static_cast<size_t>(w.view().numel()) * sizeof(kernels::BF16);
  std::vector<std::byte> bytes(packed.buffer.size());
  copy_to_host(bytes.data(), packed.buffer.data(), bytes.size(), stream_);
  stream_.synchronize();
  const bool is_matrix =
      bytes.size() == num_bytes && std::memcmp(bytes.data(), w.view().data, num_bytes) == 0;
  EXPECT_EQ(is_matrix, kernels::packed_is_row_major(stream_.device()));
}

TEST_P(LinearTest, MatchesTheReference) {
  for (const Shape& s : kShapes) {
    for (const auto& [x_type, y_type] :
         {std::pair(DType::kBF16, DType::kBF16), std::pair(DType::kBF16, DType::kF32),
          std::pair(DType::kF32, DType::kF32)}) {
      SCOPED_TRACE(testing::Message() << s.rows << " x " << s.num_out << " x " << s.num_in << " "
                                      << name_of(x_type) << " -> " << name_of(y_type));
      const HostTensor x = random_tensor(x_type, {s.rows, s.num_in}, random_);
      const HostTensor w = random_tensor(x_type, {s.num_out, s.num_in}, random_);
      HostTensor bias = random_tensor(DType::kF32, {s.num_out}, random_);
      if (is_cuda()) round(bias, y_type);
      const Packed packed = pack(w, stream_);
      Tolerance tolerance = tolerance_of(y_type, s.num_in);
      tolerance.absolute *= 4;  // products of two normal values reach beyond 1
      const auto is_whole = [](int64_t width, DType type) {
        return width * static_cast<int64_t>(size_of(type)) % 16 == 0;
      };
      // A GPU takes a bias for rows of whole 16-byte vectors only.
      if (!is_cuda() || (is_whole(s.num_in, x_type) && is_whole(s.num_out, y_type))) {
        EXPECT_TRUE(
            all_close(reference::linear_ref(x.values(), w.values(), bias.values(), s.num_in),
                      run(x, packed.weight, &bias, y_type, stream_).values(), tolerance));
      }
      EXPECT_TRUE(all_close(reference::linear_ref(x.values(), w.values(), {}, s.num_in),
                            run(x, packed.weight, nullptr, y_type, stream_).values(), tolerance));
    }
  }
}

TEST_P(LinearTest, FusedMatrixEqualsItsParts) {
  const HostTensor x = random_tensor(DType::kBF16, {9, 96}, random_);
  Packed fused = take_packed(DType::kBF16, 70 + 33, 96, stream_);
  int64_t begin = 0;
  std::vector<HostTensor> parts;
  for (const int64_t rows : {70, 33}) {
    const HostTensor w = random_tensor(DType::kBF16, {rows, 96}, random_);
    pack_weight({.weight = fused.weight, .rows = w.view(), .row_begin = begin}, stream_);
    parts.push_back(run(x, pack(w, stream_).weight, nullptr, DType::kF32, stream_));
    begin += rows;
  }
  const HostTensor y = run(x, fused.weight, nullptr, DType::kF32, stream_);
  std::vector<double> expected;
  for (int64_t row = 0; row < 9; ++row) {
    for (int64_t n = 0; n < 103; ++n) {
      const HostTensor& part = n < 70 ? parts[0] : parts[1];
      const int64_t at = n < 70 ? row * 70 + n : row * 33 + n - 70;
      expected.push_back(part.view().as<float>()[at]);
    }
  }
  // A GPU may sum matrices of different widths in different orders.
  Tolerance tolerance{};
  if (is_cuda()) tolerance = tolerance_of(DType::kF32, 4 * 96);
  EXPECT_TRUE(all_close(expected, y.values(), tolerance));
}

// A promise of the product: the same bits alone and in any batch, on any number of threads.
TEST_P(LinearTest, ARowDoesNotDependOnItsCompany) {
  constexpr int64_t kRows = 211;
  const std::vector<Stream> streams = deterministic_streams();
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const HostTensor x = random_tensor(dtype, {kRows, 700}, random_);
    const Packed packed = pack(random_tensor(dtype, {331, 700}, random_), stream_);
    stream_.synchronize();  // other streams read the weight
    const HostTensor all = run(x, packed.weight, nullptr, DType::kF32, streams[0]);
    for (const int64_t size : {1, 2, 5, 6, 7, 16, 96, 100}) {
      for (int64_t begin = 0; begin + size <= kRows; begin += 53) {
        HostTensor some(dtype, {size, 700});
        const Tensor from = x.view().rows(begin, begin + size);
        std::memcpy(some.view().data, from.data, some.num_bytes());
        const Stream& stream = streams[static_cast<size_t>(size) % streams.size()];
        const HostTensor y = run(some, packed.weight, nullptr, DType::kF32, stream);
        EXPECT_TRUE(same_bits(y.view(), all.view().rows(begin, begin + size)));
      }
    }
  }
}

// The shapes a model has: multiples of 16 bytes, and more rows than a tile.
TEST_P(LinearTest, ARowOfAWideMatrixDoesNotDependOnItsCompany) {
  constexpr int64_t kRows = 300;
  const std::vector<Stream> streams = deterministic_streams();
  const HostTensor x = random_tensor(DType::kBF16, {kRows, 512}, random_);
  const HostTensor bias = filled(DType::kF32, {768}, 0.5);
  const Packed packed = pack(random_tensor(DType::kBF16, {768, 512}, random_), stream_);
  stream_.synchronize();
  const HostTensor all = run(x, packed.weight, &bias, DType::kBF16, streams[0]);
  for (const int64_t size : {1, 3, 8, 64, 65, 129, 299}) {
    HostTensor some(DType::kBF16, {size, 512});
    std::memcpy(some.view().data, x.view().data, some.num_bytes());
    const HostTensor y = run(some, packed.weight, &bias, DType::kBF16, streams.back());
    EXPECT_TRUE(same_bits(y.view(), all.view().rows(0, size))) << size;
  }
}

TEST_P(LinearTest, PoisonStaysInItsRow) {
  HostTensor x = random_tensor(DType::kBF16, {20, 64}, random_);
  x.set(7 * 64 + 5, std::numeric_limits<double>::quiet_NaN());
  const Packed packed = pack(random_tensor(DType::kBF16, {66, 64}, random_), stream_);
  const std::vector<double> y = run(x, packed.weight, nullptr, DType::kBF16, stream_).values();
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 66 == 7);
}

TEST_P(LinearTest, NoRowsIsNoWork) {
  const Packed packed = pack(random_tensor(DType::kBF16, {66, 64}, random_), stream_);
  EXPECT_TRUE(run(HostTensor(DType::kBF16, {0, 64}), packed.weight, nullptr, DType::kBF16, stream_)
                  .values()
                  .empty());
}

}  // namespace
}  // namespace pbserve::test
