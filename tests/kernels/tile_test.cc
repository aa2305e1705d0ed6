// Every element of a product is one chain of fused multiply-adds in ascending k: compared bit by
// bit with that chain, for every way a shape can fall into tiles.
#include "kernels/cpu/tile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace pbserve::kernels::cpu {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kGap = 3;  // poisoned elements after each row

template <class T>
struct Matrix {
  Matrix(int64_t num_rows, int64_t num_columns)
      : rows(num_rows), columns(num_columns), stride(num_columns + kGap) {
    data.assign(static_cast<size_t>(rows * stride), from_f32<T>(kPoison));
  }
  T& at(int64_t i, int64_t j) { return data[static_cast<size_t>(i * stride + j)]; }

  int64_t rows, columns, stride;
  std::vector<T> data;
};

template <class T>
Matrix<T> random_matrix(int64_t rows, int64_t columns, std::mt19937& random) {
  std::normal_distribution<float> normal;
  Matrix<T> matrix(rows, columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) matrix.at(i, j) = from_f32<T>(normal(random));
  }
  return matrix;
}

template <class B>
void multiply(Matrix<float>& c, Matrix<float>& a, Matrix<B>& b, int64_t k_begin, int64_t k_end,
              Accumulate mode) {
  matmul(c.data.data(), c.stride, a.data.data() + k_begin, a.stride,
         b.data.data() + k_begin * b.stride, b.stride, c.rows, c.columns, k_end - k_begin, mode);
}

template <class B>
void expect_chain(Matrix<float>& c, Matrix<float>& a, Matrix<B>& b) {
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.columns; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < a.columns; ++k) sum = std::fma(a.at(i, k), to_f32(b.at(k, j)), sum);
      ASSERT_EQ(c.at(i, j), sum) << "row " << i << " column " << j << " of " << c.rows << " x "
                                 << c.columns;
    }
    for (int64_t j = c.columns; j < c.stride; ++j) ASSERT_TRUE(std::isnan(c.at(i, j)));
  }
}

template <class B>
class TileTest : public ::testing::Test {};
using Types = ::testing::Types<float, BF16>;
TYPED_TEST_SUITE(TileTest, Types);

TYPED_TEST(TileTest, EveryShapeIsTheSameChain) {
  std::mt19937 random(7);
  for (int64_t m = 1; m <= 15; ++m) {
    for (const int64_t n : {1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 79, 128, 131}) {
      for (const int64_t k : {0, 1, 2, 37}) {
        auto a = random_matrix<float>(m, k, random);
        auto b = random_matrix<TypeParam>(k, n, random);
        Matrix<float> c(m, n);
        multiply(c, a, b, 0, k, Accumulate::kOverwrite);
        expect_chain(c, a, b);
      }
    }
  }
}

TYPED_TEST(TileTest, ACutSumIsTheSameChain) {
  std::mt19937 random(8);
  for (const int64_t n : {64, 77}) {
    auto a = random_matrix<float>(9, 100, random);
    auto b = random_matrix<TypeParam>(100, n, random);
    Matrix<float> c(9, n);
    multiply(c, a, b, 0, 41, Accumulate::kOverwrite);
    multiply(c, a, b, 41, 42, Accumulate::kAdd);
    multiply(c, a, b, 42, 100, Accumulate::kAdd);
    expect_chain(c, a, b);
  }
}

TYPED_TEST(TileTest, PoisonStaysInItsRowAndColumn) {
  std::mt19937 random(9);
  auto a = random_matrix<float>(13, 20, random);
  auto b = random_matrix<TypeParam>(20, 70, random);
  a.at(8, 3) = kPoison;
  b.at(5, 66) = from_f32<TypeParam>(kPoison);
  Matrix<float> c(13, 70);
  multiply(c, a, b, 0, 20, Accumulate::kOverwrite);
  for (int64_t i = 0; i < 13; ++i) {
    for (int64_t j = 0; j < 70; ++j) EXPECT_EQ(std::isnan(c.at(i, j)), i == 8 || j == 66);
  }
}

}  // namespace
}  // namespace pbserve::kernels::cpu
