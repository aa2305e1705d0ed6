// The rules of tests/tidy/ on small bad inputs, then on every file of the repository.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/tidy/strings.h"
#include "tests/tidy/tidy.h"

namespace pbserve::tidy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<Finding> includes_of(std::string path, std::string_view include) {
  return check_includes({std::move(path), concat("// x\n#include ", include, "\n")});
}

TEST(Includes, GoDownNeverUp) {
  EXPECT_THAT(includes_of("server/a.cc", "\"engine/engine.h\""), IsEmpty());
  EXPECT_THAT(includes_of("engine/a.cc", "\"models/config.h\""), IsEmpty());
  EXPECT_THAT(includes_of("models/a.cc", "\"kernels/ops/norm.h\""), IsEmpty());
  EXPECT_THAT(includes_of("kernels/cpu/a.cc", "\"kernels/ops/norm.h\""), IsEmpty());
  EXPECT_THAT(includes_of("tests/engine/a.cc", "\"kernels/cpu/tile.h\""), IsEmpty());

  EXPECT_THAT(includes_of("kernels/core/a.h", "\"kernels/ops/norm.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("kernels/ops/a.h", "\"kernels/cpu/tile.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("kernels/cpu/a.h", "\"kernels/cuda/launch.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("models/a.h", "\"kernels/cpu/tile.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("models/a.h", "\"engine/step.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("engine/a.h", "\"server/http/sse.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("engine/a.h", "\"tests/support/compare.h\""), SizeIs(1));
}

TEST(Includes, ServerSeesFourHeadersOfTheEngine) {
  EXPECT_THAT(includes_of("server/a.cc", "\"engine/metrics.h\""), IsEmpty());
  EXPECT_THAT(includes_of("server/a.cc", "\"kernels/core/status.h\""), IsEmpty());
  EXPECT_THAT(includes_of("server/a.cc", "\"engine/scheduler.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("server/a.cc", "\"kernels/core/tensor.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("server/a.cc", "\"models/tokenizer/tokenizer.h\""), SizeIs(1));
}

TEST(Includes, StartAtTheRoot) {
  EXPECT_THAT(includes_of("engine/a.cc", "\"step.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("engine/a.cc", "\"../engine/step.h\""), SizeIs(1));
}

TEST(Includes, ThirdPartyStaysWithItsOwner) {
  EXPECT_THAT(includes_of("kernels/cuda/a.cu", "<cuda_runtime.h>"), IsEmpty());
  EXPECT_THAT(includes_of("kernels/core/a.h", "<cuda_runtime.h>"), SizeIs(1));
  EXPECT_THAT(includes_of("tests/kernels/a.cc", "<cuda_runtime.h>"), SizeIs(1));
  EXPECT_THAT(includes_of("server/a.cc", "<grpcpp/server.h>"), IsEmpty());
  EXPECT_THAT(includes_of("engine/a.cc", "<grpcpp/server.h>"), SizeIs(1));
  EXPECT_THAT(includes_of("engine/a.cc", "<boost/asio/post.hpp>"), SizeIs(1));
  EXPECT_THAT(includes_of("server/kv_events/a.cc", "<zmq.hpp>"), IsEmpty());
  EXPECT_THAT(includes_of("server/a.cc", "<zmq.hpp>"), SizeIs(1));
  EXPECT_THAT(includes_of("engine/a.cc", "<google/protobuf/message.h>"), SizeIs(1));
  EXPECT_THAT(includes_of("models/a.cc", "<nlohmann/json.hpp>"), IsEmpty());
  EXPECT_THAT(includes_of("engine/a.cc", "<nlohmann/json.hpp>"), SizeIs(1));
  EXPECT_THAT(includes_of("engine/a.cc", "\"proto/inference.pb.h\""), SizeIs(1));
}

TEST(Includes, FrontsMeetInWhatBothUse) {
  EXPECT_THAT(includes_of("server/http/a.cc", "\"server/generation.h\""), IsEmpty());
  EXPECT_THAT(includes_of("server/http/a.cc", "\"server/grpc/call.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("server/grpc/a.cc", "\"server/http/stream.h\""), SizeIs(1));
}

TEST(Includes, SchedulerAndRunnerMeetInStepOnly) {
  EXPECT_THAT(includes_of("engine/scheduler.cc", "\"engine/step.h\""), IsEmpty());
  EXPECT_THAT(includes_of("engine/scheduler.cc", "\"engine/model_runner.h\""), SizeIs(1));
  EXPECT_THAT(includes_of("engine/model_runner.h", "\"engine/scheduler.h\""), SizeIs(1));
}

TEST(Includes, AreReadWithTheirLines) {
  const auto found =
      read_includes({"a.h", "#pragma once\n  #  include <a/b.h>\n#include \"c.h\"\n"});
  ASSERT_THAT(found, SizeIs(2));
  EXPECT_EQ(found[0].name, "a/b.h");
  EXPECT_EQ(found[0].line, 2);
  EXPECT_FALSE(found[0].is_quoted);
  EXPECT_TRUE(found[1].is_quoted);
}

std::string repeat(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += concat(text);
  return all;
}

TEST(Lengths, OfFiles) {
  EXPECT_THAT(check_lengths({"engine/a.cc", repeat("int x;\n", 399)}), IsEmpty());
  EXPECT_THAT(check_lengths({"engine/a.cc", repeat("int x;\n", 400)}), SizeIs(1));
  EXPECT_THAT(check_lengths({"tests/a.py", repeat("x = 1\n", 400)}), SizeIs(1));
  EXPECT_THAT(check_lengths({"kernels/cuda/a.cu", repeat("int x;\n", 699)}), IsEmpty());
  EXPECT_THAT(check_lengths({"kernels/cuda/a.cu", repeat("int x;\n", 700)}), SizeIs(1));
}

TEST(Lengths, OfLinesInCharacters) {
  EXPECT_THAT(check_lengths({"a.py", repeat("x", 100)}), IsEmpty());
  EXPECT_THAT(check_lengths({"a.py", repeat("ä", 100)}), IsEmpty());
  const auto findings = check_lengths({"a.py", concat("short\n", repeat("x", 101))});
  ASSERT_THAT(findings, SizeIs(1));
  EXPECT_EQ(findings[0].line, 2);
}

// A function with `num_lines` from its opening to its closing brace.
std::string function_of(std::string_view header, int num_lines) {
  return concat("namespace a {\n", header, " {\n", repeat("  if (x) { y(); }\n", num_lines - 2),
                "}\n}\n");
}

TEST(Lengths, OfFunctions) {
  for (const char* header :
       {"int f(int a)", "template <class T>\nvoid g(T t)", "A::A(int a) : a_{a}, b_(1)",
        "auto h() -> int", "bool operator==(const A& a, const A& b)", "TEST(A, B)",
        "extern \"C\" int k(const char* p)", "void A::f() const noexcept"}) {
    EXPECT_THAT(check_lengths({"engine/a.cc", function_of(header, 69)}), IsEmpty()) << header;
    const auto findings = check_lengths({"engine/a.cc", function_of(header, 70)});
    ASSERT_THAT(findings, SizeIs(1)) << header;
    EXPECT_THAT(findings[0].message, HasSubstr("70 lines"));
  }
}

TEST(Lengths, TypesAndTablesAreNoFunctions) {
  for (const char* header : {"class A : public B", "struct alignas(64) A", "enum class A : char",
                             "const A kTable[] =", "extern \"C\""}) {
    const std::string text = concat(header, " {\n", repeat("x,\n", 100), "};\n");
    EXPECT_THAT(check_lengths({"engine/a.cc", text}), IsEmpty()) << header;
  }
}

TEST(Lengths, BracesInTextAreNoCode) {
  const std::string tricky =
      "const char* a = \"{\"; // {\nchar b = '{'; /* { */\nint c = 1'000 + 0xF'F; auto d = U'{';\n"
      "#define D {\nconst char* e = R\"x({ \" {)x\";\nconst char* f = \"\\\"{\";\n";
  EXPECT_EQ(strip_to_code(tricky).find('{'), std::string::npos);
  EXPECT_THAT(check_lengths({"a.cc", tricky + function_of("int f()", 70)}), SizeIs(1));
}

TEST(Words, OfUnfinishedWork) {
  for (const std::string& line : {concat("// FIX", "ME"), concat("# XX", "X: see"),
                                  concat("// a HA", "CK"), concat("// For", " now this"),
                                  concat("// TO", "DO: later"), concat("\"/wo", "rk/main\"")}) {
    EXPECT_THAT(check_words({"a.cc", concat("int x;\n", line)}), SizeIs(1)) << line;
  }
  for (const std::string& line : {concat("// TO", "DO(#12): later"),
                                  concat("mkdtemp(\"a.", "XXXXXX\")"), concat("network", "/")}) {
    EXPECT_THAT(check_words({"a.cc", line}), IsEmpty()) << line;
  }
}

TEST(DeadFiles, AreSourcesNoBuildNamesAndHeadersNobodyIncludes) {
  const std::vector<SourceFile> files = {{"engine/used.cc", "#include \"engine/used.h\"\n"},
                                         {"engine/used.h", ""},
                                         {"engine/sub/dead.cc", ""},
                                         {"engine/dead.h", "#include \"engine/deader.h\"\n"},
                                         {"engine/deader.h", ""}};
  std::vector<std::string> dead;
  for (const Finding& f : check_dead_files(files, "add_library(engine used.cc)")) {
    dead.push_back(f.path);
  }
  EXPECT_THAT(dead, ElementsAre("engine/sub/dead.cc", "engine/dead.h"));
}

// The repository itself.

std::string read_file(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

bool is_checked(std::string_view path) {
  for (const char* data :
       {"tests/bench/haystack/", "tests/bench/results/", "/fixtures/", "/seeds/"}) {
    if (contains(path, data)) return false;
  }
  for (const char* end : {".py", ".sh", ".proto", "CMakeLists.txt", ".cmake", ".in"}) {
    if (path.ends_with(end)) return true;
  }
  return is_cpp(path);
}

std::vector<SourceFile> read_repository() {
  const std::filesystem::path root = PBSERVE_SOURCE_DIR;
  std::vector<SourceFile> files;
  for (const char* folder :
       {"kernels", "models", "engine", "server", "proto", "tests", "docker", "configs"}) {
    if (!std::filesystem::exists(root / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string path = entry.path().lexically_relative(root).generic_string();
      if (entry.is_regular_file() && is_checked(path)) {
        files.push_back({path, read_file(entry.path())});
      }
    }
  }
  return files;
}

std::string print(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& f : findings) {
    text += concat(f.path, ":", f.line, ": ", f.message, "\n");
  }
  return text;
}

TEST(Repository, FollowsEveryRule) {
  const std::vector<SourceFile> files = read_repository();
  ASSERT_GT(files.size(), 200u) << "the repository was not found at " << PBSERVE_SOURCE_DIR;
  std::string findings;
  for (const SourceFile& file : files) {
    if (is_cpp(file.path)) findings += concat(print(check_includes(file)));
    findings += concat(print(check_lengths(file)), print(check_words(file)));
  }
  EXPECT_EQ(findings, "");
}

TEST(Repository, HasNoDeadFiles) {
  const std::vector<SourceFile> files = read_repository();
  std::string build = read_file(std::filesystem::path(PBSERVE_BUILD_DIR) / "compile_commands.json");
  ASSERT_THAT(build, HasSubstr("tests/tidy_test.cc")) << "no compile database in the build folder";
  for (const SourceFile& file : files) {
    if (file.path.ends_with("CMakeLists.txt")) build += concat(file.text);
  }
  EXPECT_EQ(print(check_dead_files(files, build)), "");
}

}  // namespace
}  // namespace pbserve::tidy
