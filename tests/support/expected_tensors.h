// The parity fixtures of tests/models/fixtures: tensors that `transformers` computed.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/check.h"
#include "models/checkpoint.h"

namespace pbserve::test {

class ExpectedTensors {
 public:
  explicit ExpectedTensors(const std::string& path) : file_(open(path)) {
    auto tensors = models::parse_safetensors(file_.bytes(), path);
    check(tensors.ok(), tensors.status().ToString());
    tensors_ = *std::move(tensors);
  }

  // The elements of a tensor whose stored type is as wide as T.
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const models::StoredTensor& tensor = tensors_.at(name);
    std::vector<T> values(tensor.num_bytes / sizeof(T));
    std::memcpy(values.data(), tensor.data, tensor.num_bytes);
    return values;
  }

 private:
  static models::MappedFile open(const std::string& path) {
    auto file = models::MappedFile::open(path);
    check(file.ok(), file.status().ToString());
    return *std::move(file);
  }

  models::MappedFile file_;
  models::StoredTensors tensors_;
};

}  // namespace pbserve::test
