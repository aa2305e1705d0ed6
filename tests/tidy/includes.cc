// Direction of includes: one row of the table per folder, one owner per third-party prefix.
#include <algorithm>
#include <span>

#include "tests/tidy/strings.h"
#include "tests/tidy/tidy.h"

namespace pbserve::tidy {
namespace {

struct Floor {
  std::string_view folder;
  std::vector<std::string_view> may_include;  // prefixes of quoted includes
};

// The first folder that fits a file is its floor.
const std::vector<Floor>& floors() {
  static const std::vector<Floor> kFloors = {
      {"kernels/core/", {"kernels/core/"}},
      {"kernels/ops/", {"kernels/ops/", "kernels/core/"}},
      {"kernels/cpu/", {"kernels/cpu/", "kernels/ops/", "kernels/core/"}},
      {"kernels/cuda/", {"kernels/cuda/", "kernels/ops/", "kernels/core/"}},
      {"models/", {"models/", "kernels/ops/", "kernels/core/"}},
      {"engine/", {"engine/", "models/", "kernels/ops/", "kernels/core/"}},
      {"server/",
       {"server/", "proto/", "engine/cache_listener.h", "engine/config.h", "engine/engine.h",
        "engine/host_memory.h", "engine/metrics.h", "engine/request.h", "kernels/core/status.h"}},
      {"tests/", {"tests/", "server/", "proto/", "engine/", "models/", "kernels/"}},
  };
  return kFloors;
}

struct Owner {
  std::string_view prefix;                // of the included name
  std::vector<std::string_view> folders;  // that may include it
};

const std::vector<Owner>& owners() {
  static const std::vector<Owner> kOwners = {
      {"cuda", {"kernels/cuda/"}},
      {"cublas", {"kernels/cuda/"}},
      {"nccl", {"kernels/cuda/"}},
      {"grpc", {"server/", "tests/server/", "tests/fuzz/fuzz_grpc"}},
      {"google/protobuf/", {"server/", "tests/server/", "tests/fuzz/fuzz_grpc"}},
      {"boost/", {"server/", "tests/server/", "tests/fuzz/fuzz_http"}},
      {"nlohmann/", {"server/", "models/", "tests/"}},
      {"proto/", {"server/", "tests/server/", "tests/fuzz/fuzz_grpc"}},
      {"zmq", {"server/kv_events/", "tests/server/kv_events/"}},
  };
  return kOwners;
}

// Parts of a floor that must not know each other, and where they meet.
struct Strangers {
  std::string_view one;
  std::string_view other;
  std::string_view meet_in;
};
constexpr Strangers kStrangers[] = {
    {"engine/scheduler.", "engine/model_runner.h", "engine/step.h"},
    {"engine/model_runner.", "engine/scheduler.h", "engine/step.h"},
    {"server/http/", "server/grpc/", "server/generation.h"},
    {"server/grpc/", "server/http/", "server/generation.h"},
};

bool starts_with_any(std::string_view name, std::span<const std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [name](std::string_view prefix) { return name.starts_with(prefix); });
}

// Why `path` must not include `include`; empty if it may.
std::string refusal(std::string_view path, const Include& include) {
  for (const Owner& owner : owners()) {
    if (include.name.starts_with(owner.prefix) && !starts_with_any(path, owner.folders)) {
      return concat(include.name, " belongs to ", owner.folders.front());
    }
  }
  for (const Strangers& strangers : kStrangers) {
    if (path.starts_with(strangers.one) && include.name.starts_with(strangers.other)) {
      return concat(path, " and ", include.name, " meet in ", strangers.meet_in, " only");
    }
  }
  if (!include.is_quoted || include.name.starts_with("absl/")) return "";
  for (const Floor& floor : floors()) {
    if (!path.starts_with(floor.folder)) continue;
    if (starts_with_any(include.name, floor.may_include)) return "";
    return concat(floor.folder, " must not include ", include.name);
  }
  return concat(path, " is on no floor");
}

}  // namespace

std::vector<Include> read_includes(const SourceFile& file) {
  std::vector<Include> includes;
  int number = 0;
  for (std::string_view line : split_lines(file.text)) {
    ++number;
    line = without_leading_blanks(line);
    if (!line.starts_with('#')) continue;
    line = without_leading_blanks(line.substr(1));
    if (!line.starts_with("include")) continue;
    line = without_leading_blanks(line.substr(std::string_view("include").size()));
    if (line.empty() || (line[0] != '"' && line[0] != '<')) continue;
    const size_t end = line.find(line[0] == '"' ? '"' : '>', 1);
    if (end == std::string_view::npos) continue;
    includes.push_back({number, std::string(line.substr(1, end - 1)), line[0] == '"'});
  }
  return includes;
}

std::vector<Finding> check_includes(const SourceFile& file) {
  std::vector<Finding> findings;
  for (const Include& include : read_includes(file)) {
    std::string reason = refusal(file.path, include);
    if (!reason.empty()) findings.push_back({file.path, include.line, std::move(reason)});
  }
  return findings;
}

std::vector<Finding> check_dead_files(const std::vector<SourceFile>& files,
                                      std::string_view build_text) {
  std::string included;  // every included name in a line of its own
  for (const SourceFile& file : files) {
    for (const Include& include : read_includes(file)) included += concat(include.name, "\n");
  }
  std::vector<Finding> findings;
  for (const SourceFile& file : files) {
    if (!is_cpp(file.path)) continue;
    const bool is_header = file.path.ends_with(".h") || file.path.ends_with(".cuh");
    if (is_header && !contains(included, concat(file.path, "\n"))) {
      findings.push_back({file.path, 0, "nobody includes it"});
    }
    // A CMakeLists.txt names a source from its own folder, the compile database from the root.
    const std::string_view below_floor =
        std::string_view(file.path).substr(file.path.find('/') + 1);
    if (!is_header && !contains(build_text, below_floor)) {
      findings.push_back({file.path, 0, "no CMakeLists.txt names it"});
    }
  }
  return findings;
}

}  // namespace pbserve::tidy
