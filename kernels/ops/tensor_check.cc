#include "kernels/ops/tensor_check.h"

#include <algorithm>
#include <sstream>

namespace pbserve::kernels {
namespace {

template <class Sizes>
void print_sizes(std::ostringstream& text, const Sizes& begin, int count) {
  text << "[";
  for (int i = 0; i < count; ++i) text << (i > 0 ? ", " : "") << begin[i];
  text << "]";
}

bool same_shape(const Tensor& tensor, std::initializer_list<int64_t> dims) {
  return tensor.rank == static_cast<int>(dims.size()) &&
         std::equal(dims.begin(), dims.end(), tensor.shape.begin());
}

}  // namespace

int64_t size_at(Operand operand, int axis) {
  if (operand.tensor.rank <= axis) die(std::string(operand.name) + ": rank too small");
  return operand.tensor.dim(axis);
}

void expect_shape(Operand operand, std::initializer_list<int64_t> dims) {
  const Tensor& tensor = operand.tensor;
  if (!same_shape(tensor, dims)) {
    std::ostringstream text;
    text << operand.name << ": shape ";
    print_sizes(text, tensor.shape, tensor.rank);
    text << ", expected ";
    print_sizes(text, dims.begin(), static_cast<int>(dims.size()));
    die(text.str());
  }
  if (!tensor.contiguous()) die(std::string(operand.name) + ": not contiguous");
  if (tensor.empty() && tensor.numel() > 0) die(std::string(operand.name) + ": no data");
  expect_aligned(operand, size_of(tensor.dtype));
}

void expect_dtype(Operand operand, std::initializer_list<DType> allowed) {
  if (std::find(allowed.begin(), allowed.end(), operand.tensor.dtype) != allowed.end()) return;
  std::ostringstream text;
  text << operand.name << ": dtype " << name_of(operand.tensor.dtype) << ", expected";
  for (const DType dtype : allowed) text << " " << name_of(dtype);
  die(text.str());
}

void expect_aligned(Operand operand, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(operand.tensor.data);
  if (address % bytes == 0) return;
  std::ostringstream text;
  text << operand.name << ": not on a boundary of " << bytes << " bytes";
  die(text.str());
}

void expect_float(Operand operand) { expect_dtype(operand, {DType::kBF16, DType::kF32}); }

void expect_heads(Operand operand, DType like, std::initializer_list<int64_t> dims) {
  expect_shape(operand, dims);
  expect_float(operand);
  expect_dtype(operand, {like});
  expect_aligned(operand, kVectorAlignment);
  check(*(dims.end() - 1) % 16 == 0, "head size is not a multiple of 16");
}

}  // namespace pbserve::kernels
