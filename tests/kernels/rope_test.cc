#include "kernels/ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/reference/ops_ref.h"
#include "tests/support/backends.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::kPageSize;
using kernels::Stream;
using kernels::Tensor;

struct Case {
  DType dtype = DType::kF32;
  int64_t num_q_heads = 3;
  int64_t num_kv_heads = 1;
  int64_t head_dim = 64;
  int64_t num_pages = 4;
  bool head_norm = false;
  float rope_scale = 1;
  std::vector<int32_t> positions = {};
  std::vector<int64_t> slots = {};

  int64_t num_rows() const { return static_cast<int64_t>(positions.size()); }
  int64_t num_heads() const { return num_q_heads + 2 * num_kv_heads; }
};

std::vector<float> inv_freq_of(int64_t head_dim) {
  std::vector<float> inv_freq;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double exponent = -2 * static_cast<double>(i) / static_cast<double>(head_dim);
    inv_freq.push_back(static_cast<float>(std::pow(1e6, exponent)));
  }
  return inv_freq;
}

struct Inputs {
  Inputs(const Case& c, std::mt19937& random)
      : qkv(random_tensor(c.dtype, {c.num_rows(), c.num_heads(), c.head_dim}, random)),
        q_norm(random_tensor(DType::kF32, {c.head_dim}, random)),
        k_norm(random_tensor(DType::kF32, {c.head_dim}, random)) {}

  HostTensor qkv, q_norm, k_norm;
};

struct Outputs {
  HostTensor q, k_pages, v_pages;
};

constexpr float kEps = 1e-6f;

Outputs run(const Case& c, const Inputs& in, const Stream& stream) {
  const DeviceTensor qkv(in.qkv, stream);
  const DeviceTensor q_norm(in.q_norm, stream);
  const DeviceTensor k_norm(in.k_norm, stream);
  const DeviceTensor inv_freq(tensor_of(inv_freq_of(c.head_dim)), stream);
  const DeviceTensor positions(tensor_of(c.positions), stream);
  const DeviceTensor slots(tensor_of(c.slots), stream);
  const HostTensor pages = poisoned(c.dtype, {c.num_pages, c.num_kv_heads, kPageSize, c.head_dim});
  const DeviceTensor k_pages(pages, stream);
  const DeviceTensor v_pages(pages, stream);
  const DeviceTensor q(poisoned(c.dtype, {c.num_rows(), c.num_q_heads, c.head_dim}), stream);
  rope_append({.q = q.view(),
               .k_pages = k_pages.view(),
               .v_pages = v_pages.view(),
               .qkv = qkv.view(),
               .q_norm = c.head_norm ? q_norm.view() : Tensor(),
               .k_norm = c.head_norm ? k_norm.view() : Tensor(),
               .inv_freq = inv_freq.view(),
               .positions = positions.view(),
               .slots = slots.view(),
               .rope_scale = c.rope_scale,
               .norm_eps = kEps},
              stream);
  return {.q = q.read(), .k_pages = k_pages.read(), .v_pages = v_pages.read()};
}

std::span<const double> head_of(const std::vector<double>& values, int64_t index, int64_t dim) {
  return {values.data() + index * dim, static_cast<size_t>(dim)};
}

// The head of qkv, normed and turned in double.
std::vector<double> expected_head(const Case& c, const Inputs& in, int64_t row, int64_t head) {
  const std::vector<double> qkv = in.qkv.values();
  const auto raw = head_of(qkv, row * c.num_heads() + head, c.head_dim);
  std::vector<double> values(raw.begin(), raw.end());
  if (c.head_norm) {
    const HostTensor& weight = head < c.num_q_heads ? in.q_norm : in.k_norm;
    values = reference::rms_norm_ref(values, weight.values(), kEps);
  }
  return reference::rope_ref(values, inv_freq_of(c.head_dim), c.positions[static_cast<size_t>(row)],
                             c.rope_scale);
}

int64_t page_head(const Case& c, int64_t slot, int64_t head) {
  return (slot / kPageSize * c.num_kv_heads + head) * kPageSize + slot % kPageSize;
}

void expect_all(const Case& c, const Inputs& in, const Outputs& out) {
  Tolerance tolerance = tolerance_of(c.dtype, 16);
  tolerance.absolute *= 4;
  const std::vector<double> q = out.q.values();
  const std::vector<double> k = out.k_pages.values();
  const std::vector<double> v = out.v_pages.values();
  std::set<int64_t> written;
  for (int64_t row = 0; row < c.num_rows(); ++row) {
    SCOPED_TRACE(row);
    for (int64_t h = 0; h < c.num_q_heads; ++h) {
      EXPECT_TRUE(all_close(expected_head(c, in, row, h),
                            head_of(q, row * c.num_q_heads + h, c.head_dim), tolerance));
    }
    const int64_t slot = c.slots[static_cast<size_t>(row)];
    if (slot < 0) continue;
    for (int64_t h = 0; h < c.num_kv_heads; ++h) {
      const int64_t place = page_head(c, slot, h);
      written.insert(place);
      EXPECT_TRUE(all_close(expected_head(c, in, row, c.num_q_heads + h),
                            head_of(k, place, c.head_dim), tolerance));
      const int64_t v_head = row * c.num_heads() + c.num_q_heads + c.num_kv_heads + h;
      const std::vector<double> qkv = in.qkv.values();
      EXPECT_TRUE(all_close(head_of(qkv, v_head, c.head_dim), head_of(v, place, c.head_dim), {}));
    }
  }
  for (size_t i = 0; i < k.size(); ++i) {  // everything else in the pages is untouched
    const bool is_written = written.count(static_cast<int64_t>(i) / c.head_dim) > 0;
    ASSERT_EQ(std::isnan(k[i]), !is_written) << i;
    ASSERT_EQ(std::isnan(v[i]), !is_written) << i;
  }
}

class RopeTest : public ::testing::TestWithParam<Backend> {
 protected:
  std::mt19937 random_{13};
  Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, RopeTest, ::testing::ValuesIn(backends()), backend_name);

TEST_P(RopeTest, RotatesAndAppends) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t head_dim : {16, 48, 64, 128, 256, 512}) {
      for (const bool head_norm : {false, true}) {
        SCOPED_TRACE(testing::Message() << name_of(dtype) << " D " << head_dim << " " << head_norm);
        const Case c{.dtype = dtype,
                     .num_q_heads = 4,
                     .num_kv_heads = 2,
                     .head_dim = head_dim,
                     .head_norm = head_norm,
                     .positions = {0, 1, 127, 128, 4095},
                     .slots = {0, 127, 128, 511, 300}};
        const Inputs in(c, random_);
        expect_all(c, in, run(c, in, stream_));
      }
    }
  }
}

TEST_P(RopeTest, FarPositionsFollowTheFloat32Product) {
  const Case c{
      .rope_scale = 1.25f, .positions = {1'000'003, 1'048'575, 262'143}, .slots = {5, 6, 7}};
  const Inputs in(c, random_);
  expect_all(c, in, run(c, in, stream_));
}

TEST_P(RopeTest, ASlotOfMinusOneWritesNothing) {
  const Case c{.positions = {3, 4, 5}, .slots = {-1, 9, -1}};
  const Inputs in(c, random_);
  expect_all(c, in, run(c, in, stream_));
}

TEST_P(RopeTest, ARowDoesNotDependOnItsCompany) {
  Case all{.dtype = DType::kBF16, .num_pages = 8, .head_norm = true};
  for (int i = 0; i < 701; ++i) {
    all.positions.push_back(i * 37);
    all.slots.push_back((i * 5) % 1024);
  }
  const Inputs in(all, random_);
  const Outputs together = run(all, in, stream_);
  for (const int64_t row : {0, 1, 350, 700}) {
    Case one = all;
    one.positions = {all.positions[static_cast<size_t>(row)]};
    one.slots = {all.slots[static_cast<size_t>(row)]};
    Inputs alone_in(one, random_);
    std::memcpy(alone_in.qkv.view().data, in.qkv.view().rows(row, row + 1).data,
                alone_in.qkv.num_bytes());
    std::memcpy(alone_in.q_norm.view().data, in.q_norm.view().data, in.q_norm.num_bytes());
    std::memcpy(alone_in.k_norm.view().data, in.k_norm.view().data, in.k_norm.num_bytes());
    const Outputs alone = run(one, alone_in, stream_);
    EXPECT_TRUE(same_bits(alone.q.view(), together.q.view().rows(row, row + 1)));
    const int64_t slot = one.slots[0];
    const auto key = [&](const Outputs& out) {
      return out.k_pages.view()
          .at(slot / kPageSize)
          .at(0)
          .rows(slot % kPageSize, slot % kPageSize + 1);
    };
    EXPECT_TRUE(same_bits(key(alone), key(together)));
  }
}

}  // namespace
}  // namespace pbserve::test
