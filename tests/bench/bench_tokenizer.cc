// Bytes a second of one core, as JSON lines: English text cold and warm, decoding, and the strings
// that make careless tokenizers slow. Usage: bench_tokenizer FOLDER [TEXT]
#include <algorithm>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "models/tokenizer/tokenizer.h"

namespace {

using pbserve::models::Tokenizer;

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

template <class Call>
double time_of(const Call& call) {
  const double start = cpu_seconds();
  call();
  return cpu_seconds() - start;
}

void report(const std::string& what, size_t num_bytes, size_t num_ids, double seconds) {
  std::cout << R"({"what": ")" << what << R"(", "bytes": )" << num_bytes << R"(, "ids": )"
            << num_ids << R"(, "seconds": )" << seconds << R"(, "mb_per_s": )"
            << static_cast<double>(num_bytes) / seconds / 1e6 << "}\n";
}

// Median of `num_runs`; every result is the same ids.
void bench_encode(const Tokenizer& tokenizer, const std::string& what, const std::string& text,
                  int num_runs) {
  std::vector<double> seconds;
  size_t num_ids = 0;
  for (int run = 0; run < num_runs; ++run) {
    seconds.push_back(time_of([&] { num_ids = tokenizer.encode(text, {})->size(); }));
  }
  std::sort(seconds.begin(), seconds.end());
  report(what, text.size(), num_ids, seconds[seconds.size() / 2]);
}

std::string repeat(const std::string& unit, size_t num_bytes) {
  std::string text;
  while (text.size() + unit.size() <= num_bytes) text += unit;
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: bench_tokenizer FOLDER [TEXT]\n";
    return 2;
  }
  const auto tokenizer = Tokenizer::load(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  const std::string path =
      argc > 2 ? argv[2] : PBSERVE_SOURCE_DIR "/tests/bench/haystack/postgresql-15.txt";
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto ids = (*tokenizer)->encode(text, {});
  if (text.empty() || !ids.ok()) {
    std::cerr << path << ": " << (text.empty() ? "cannot be read" : ids.status().ToString())
              << "\n";
    return 1;
  }
  const auto fresh = Tokenizer::load(argv[1]);
  bench_encode(**fresh, "text, cold cache", text, 1);
  bench_encode(**tokenizer, "text, warm cache", text, 21);
  const double seconds = time_of([&] { (*tokenizer)->decode(*ids, true); });
  report("decode", text.size(), ids->size(), seconds);
  constexpr size_t kMegabyte = size_t{1} << 20;
  const std::pair<const char*, const char*> units[] = {
      {"letters", "a"},        {"spaces", " "}, {"newlines", "\n"},   {"combining marks", "\u0301"},
      {"digits", "1"},         {"ab", "ab"},    {"equal signs", "="}, {"ideographs", "\u4E2D"},
      {"abcdefgh", "abcdefgh"}};
  for (const auto& [name, unit] : units) {
    bench_encode(**tokenizer, std::string("1 MiB of ") + name, repeat(unit, kMegabyte), 3);
  }
  return 0;
}
