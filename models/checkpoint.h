// The weights of a model folder as one map of names: model.safetensors, or the shards that
// model.safetensors.index.json lists. Files stay mapped as long as the Checkpoint lives.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "models/safetensors.h"

namespace pbserve::models {

// A file's bytes, mapped read-only.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile() = default;

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

class Checkpoint {
 public:
  static absl::StatusOr<Checkpoint> open(const std::string& folder);

  const StoredTensors& tensors() const { return tensors_; }
  const std::string& folder() const { return folder_; }

 private:
  absl::Status add_file(const std::string& name);
  absl::Status add_shards(const std::string& index_path);

  std::string folder_;
  std::vector<MappedFile> files_;
  StoredTensors tensors_;
};

}  // namespace pbserve::models
