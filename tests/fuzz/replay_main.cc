// Runs a fuzz target over its seeds without a fuzzer: every file of the folder, and 64 prefixes of
// each, since a truncated file is the commonest broken one. The short mode of the fuzz tests.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// In memory of exactly this size, so that a sanitizer sees the first byte read past the end.
void run(const std::string& input, size_t size) {
  const std::string copy = input.substr(0, size);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(copy.data()), copy.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !std::filesystem::is_directory(argv[1])) {
    std::fprintf(stderr, "usage: %s FOLDER_OF_SEEDS\n", argv[0]);
    return 2;
  }
  constexpr size_t kNumPrefixes = 64;
  int num_seeds = 0;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    for (size_t i = 0; i < kNumPrefixes; ++i) run(input, input.size() * i / kNumPrefixes);
    run(input, input.size());
    ++num_seeds;
  }
  std::printf("%d seeds\n", num_seeds);
  return num_seeds > 0 ? 0 : 1;
}
