#include "server/config/text_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace pbserve::server {
namespace {

// More than all CAs of an operating system take, and many times a list of keys.
constexpr size_t kFileBytesMax = 4 << 20;

class Descriptor {
 public:
  // Does not wait for who writes into a pipe.
  explicit Descriptor(const std::string& path)
      : value_(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {}
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  const int value_;
};

absl::Status unreadable(const std::string& path) {
  return absl::NotFoundError(absl::StrCat(path, ": cannot be read: ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::string> read_text_file(const std::string& path) {
  const Descriptor file(path);
  struct stat status {};
  if (file.value() < 0 || fstat(file.value(), &status) != 0) return unreadable(path);
  if (S_ISDIR(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a folder, not a file"));
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is a pipe or a device, not a file"));
  }
  std::string text(kFileBytesMax + 1, '\0');
  size_t num_read = 0;
  while (num_read < text.size()) {
    const ssize_t got = read(file.value(), text.data() + num_read, text.size() - num_read);
    if (got < 0) return unreadable(path);
    if (got == 0) break;
    num_read += static_cast<size_t>(got);
  }
  if (num_read > kFileBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is larger than ", kFileBytesMax, " bytes"));
  }
  text.resize(num_read);
  text.shrink_to_fit();
  return text;
}

}  // namespace pbserve::server
