#include "kernels/ops/embedding.h"

#include <gtest/gtest.h>

#include "tests/support/backends.h"
#include "tests/support/compare.h"
#include "tests/support/random_tensor.h"

namespace pbserve::test {
namespace {

using kernels::DType;
using kernels::Tensor;

class EmbeddingTest : public ::testing::TestWithParam<Backend> {
 protected:
  HostTensor run(const HostTensor& table, const std::vector<int32_t>& ids,
                 const std::vector<int32_t>& index, DType y_type) {
    const DeviceTensor device_table(table, stream_);
    const DeviceTensor device_ids(tensor_of(ids), stream_);
    const DeviceTensor device_index(tensor_of(index), stream_);
    const int64_t rows = static_cast<int64_t>(index.empty() ? ids.size() : index.size());
    const DeviceTensor y(poisoned(y_type, {rows, table.view().dim(1)}), stream_);
    embedding({.y = y.view(),
               .ids = device_ids.view(),
               .index = index.empty() ? Tensor() : device_index.view(),
               .table = device_table.view()},
              stream_);
    return y.read();
  }

  std::mt19937 random_{15};
  kernels::Stream stream_ = stream_of(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, EmbeddingTest, ::testing::ValuesIn(backends()), backend_name);

void expect_rows(const HostTensor& y, const HostTensor& table, const std::vector<int32_t>& ids) {
  const std::vector<double> got = y.values();
  const std::vector<double> all = table.values();
  const size_t width = static_cast<size_t>(table.view().dim(1));
  ASSERT_EQ(got.size(), ids.size() * width);
  for (size_t i = 0; i < got.size(); ++i) {
    const int32_t id = ids[i / width];
    const double wanted = id < 0 ? 0 : all[static_cast<size_t>(id) * width + i % width];
    ASSERT_EQ(got[i], wanted) << i;
  }
}

TEST_P(EmbeddingTest, GathersRowsExactly) {
  for (const auto& [table_type, y_type] :
       {std::pair(DType::kBF16, DType::kF32), std::pair(DType::kBF16, DType::kBF16),
        std::pair(DType::kF32, DType::kF32)}) {
    const HostTensor table = random_tensor(table_type, {11, 37}, random_);
    const std::vector<int32_t> ids = {10, 0, 5, 5, 3};
    expect_rows(run(table, ids, {}, y_type), table, ids);
  }
}

TEST_P(EmbeddingTest, AnIndexPicksTheIds) {
  for (const auto& [table_type, y_type] :
       {std::pair(DType::kBF16, DType::kF32), std::pair(DType::kBF16, DType::kBF16),
        std::pair(DType::kF32, DType::kF32)}) {
    const HostTensor table = random_tensor(table_type, {4, 3072}, random_);
    expect_rows(run(table, {3, -7, 1}, {2, 0, 2, 2}, y_type), table, {1, 3, 1, 1});
  }
}

TEST_P(EmbeddingTest, NoTokenIsARowOfZeros) {
  const HostTensor table = random_tensor(DType::kBF16, {4, 72}, random_);
  expect_rows(run(table, {3, -1, 0}, {}, DType::kF32), table, {3, -1, 0});
  expect_rows(run(table, {-1, 2}, {1, 0}, DType::kF32), table, {2, -1});
}

TEST_P(EmbeddingTest, CpuDiesOnAnIdOutsideTheVocabulary) {
  if (GetParam().name != "cpu") GTEST_SKIP() << "device code cannot name the row";
  const HostTensor table = random_tensor(DType::kBF16, {4, 8}, random_);
  EXPECT_DEATH(run(table, {4}, {}, DType::kF32), "outside the vocabulary");
  EXPECT_DEATH(run(table, {-2}, {}, DType::kF32), "outside the vocabulary");
  EXPECT_DEATH(run(table, {1}, {1}, DType::kF32), "outside ids");
}

}  // namespace
}  // namespace pbserve::test
