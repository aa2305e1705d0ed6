#include "models/checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "models/json_reader.h"
#include "models/message.h"

namespace pbserve::models {

namespace {

constexpr size_t kIndexBytesMax = 100'000'000;

absl::Status system_error(const std::string& path, std::string_view call) {
  const int code = errno;
  const std::string text = message(path, ": ", call, ": ", std::strerror(code));
  return code == ENOENT ? absl::NotFoundError(text) : absl::UnavailableError(text);
}

}  // namespace

absl::StatusOr<MappedFile> MappedFile::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return system_error(path, "open");
  struct stat info {};
  absl::Status status;
  MappedFile mapped;
  if (fstat(file, &info) != 0) {
    status = system_error(path, "fstat");
  } else if (!S_ISREG(info.st_mode) || info.st_size == 0) {
    status = invalid(path, ": empty, or not a regular file");
  } else {
    mapped.size_ = static_cast<size_t>(info.st_size);
    void* memory = mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) {
      status = system_error(path, "mmap");
    } else {
      mapped.data_ = static_cast<const std::byte*>(memory);
    }
  }
  ::close(file);
  if (!status.ok()) return status;
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

absl::Status Checkpoint::add_file(const std::string& name) {
  const std::string path = message(folder_, "/", name);
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  ASSIGN_OR_RETURN(StoredTensors tensors, parse_safetensors(file.bytes(), path));
  files_.push_back(std::move(file));
  for (auto& [tensor, stored] : tensors) {
    if (!tensors_.emplace(tensor, std::move(stored)).second) {
      return invalid(path, ": tensor '", tensor, "' is in another shard too");
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::add_shards(const std::string& index_path) {
  ASSIGN_OR_RETURN(const std::string text, read_file(index_path, kIndexBytesMax));
  ASSIGN_OR_RETURN(const nlohmann::json index, parse_json(text, index_path));
  JsonReader json(index, index_path);
  const nlohmann::json* weight_map = json.find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object()) {
    json.fail("weight_map", "is not an object of names and files");
    return json.status();
  }
  std::set<std::string> shards;
  for (const auto& [tensor, file] : weight_map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    // A file of this folder and no other: the index comes from whoever made the folder.
    if (name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos ||
        name.find("..") != std::string::npos || !name.ends_with(".safetensors")) {
      return invalid(index_path, ": tensor '", tensor, "' lies in ", file.dump(-1, ' ', true),
                     ", expected the name of a .safetensors file in the same folder");
    }
    shards.insert(name);
  }
  for (const std::string& shard : shards) RETURN_IF_ERROR(add_file(shard));
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!tensors_.contains(tensor)) {
      return absl::NotFoundError(
          message(index_path, ": tensor '", tensor, "' is not in ", file.get<std::string>()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Checkpoint::open(const std::string& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  const std::string index_path = folder + "/model.safetensors.index.json";
  const bool sharded = ::access(index_path.c_str(), F_OK) == 0;
  const bool whole = ::access((folder + "/model.safetensors").c_str(), F_OK) == 0;
  RETURN_IF_ERROR(whole || !sharded ? checkpoint.add_file("model.safetensors")
                                    : checkpoint.add_shards(index_path));
  return checkpoint;
}

}  // namespace pbserve::models
