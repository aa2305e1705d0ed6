#include "kernels/core/check.h"

#include <cstdio>
#include <cstdlib>

namespace pbserve {

void die(std::string_view what, Location where) {
  std::fprintf(stderr, "%s:%d: check failed: %.*s\n", where.file, where.line,
               static_cast<int>(what.size()), what.data());
  std::fflush(stderr);
  std::abort();
}

}  // namespace pbserve
