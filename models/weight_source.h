// Where the values of parameters come from: a checkpoint, or a generator (--load-format dummy).
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>

#include "kernels/core/dtype.h"
#include "models/checkpoint.h"

namespace pbserve::models {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Says that the model has this parameter. Missing or misshapen in the source: an error naming it.
  virtual absl::Status require(const std::string& name, std::span<const int64_t> shape) = 0;

  // After the last require(): what the source holds beyond that is an error naming it.
  virtual absl::Status refuse_surplus() const = 0;

  // Writes `count` elements of a required parameter from element `begin` on, as `dtype` (float32 or
  // bfloat16). Any thread may call it.
  virtual void read(const std::string& name, int64_t begin, int64_t count, kernels::DType dtype,
                    void* out) const = 0;
};

class CheckpointSource : public WeightSource {
 public:
  struct Options {
    bool tied_embeddings;  // an lm_head beside the embedding is fine if it holds the same values
  };
  CheckpointSource(Checkpoint checkpoint, Options options);

  absl::Status require(const std::string& name, std::span<const int64_t> shape) override;
  absl::Status refuse_surplus() const override;
  void read(const std::string& name, int64_t begin, int64_t count, kernels::DType dtype,
            void* out) const override;

 private:
  Checkpoint checkpoint_;
  Options options_;
  std::set<std::string, std::less<>> required_;
};

// Matrices and biases of standard deviation 0.02, norms of 1. A value depends on the seed, its
// parameter's name and its place alone.
class DummySource : public WeightSource {
 public:
  explicit DummySource(uint64_t seed) : seed_(seed) {}

  absl::Status require(const std::string&, std::span<const int64_t>) override {
    return absl::OkStatus();
  }
  absl::Status refuse_surplus() const override { return absl::OkStatus(); }
  void read(const std::string& name, int64_t begin, int64_t count, kernels::DType dtype,
            void* out) const override;

 private:
  uint64_t seed_;
};

}  // namespace pbserve::models
