// Prefill and decode at once on one GPU: what decode steps wait and what the prefill job loses if
// each has a part of the multiprocessors (SMs), if they take turns on one stream, and if their
// streams merely overlap. Llama-3.1-8B with random weights and random K/V in the pages, 8,192 rows
// of prefill at position 99,328, dense and with PBS at a forced density.
//
// A JSON line for each measurement as it is made, then those of a way to share as a table (lines
// that begin with '#'). "loss" is the job's time over its time alone on the whole GPU, less one,
// both measured by one process.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/core/check.h"
#include "tests/bench/op_timer.h"
#include "tests/bench/partition_runs.h"
#include "tests/kernels/sm_probe.h"

namespace pbserve::bench {
namespace {

using Json = nlohmann::ordered_json;
using kernels::rounded;
using kernels::Stream;

struct Options {
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  std::vector<int> splits = {16, 8, 24, 32};
  std::vector<std::string> loads = {"16x4000", "1x1024", "64x8192"};
  std::vector<std::string> kinds = {"dense", "pbs"};
  std::vector<double> slices = {10, 15, 25};
  std::vector<double> paced = {25, 100};
  bool has_priorities = true;
  double density = 0.22;
  std::string device = "cuda";
  int num_layers = 32;
  int64_t position = 97 * 1024;
  int64_t num_rows = 8192;
  double budget_s = 110;
  bool is_quick = false;

  void make_quick() {
    splits = {16, 8, 24};
    loads = {"16x4000"};
    slices = {10, 15, 25};
    paced = {100};
    budget_s = 40;
  }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  bool is_late(const std::string& what) const {
    if (seconds() < budget_s) return false;
    std::fprintf(stderr, "%s: left out, %.0f s are over\n", what.c_str(), budget_s);
    return true;
  }
};

DecodeLoad load_of(const std::string& text) {
  const size_t by = text.find('x');
  check(by != std::string::npos && by > 0 && by + 1 < text.size(),
        "a load is ROWSxTOKENS, not " + text);
  const DecodeLoad load{std::stoi(text.substr(0, by)), std::stol(text.substr(by + 1))};
  check(load.num_rows > 0 && load.context > 0, "a load without rows or tokens: " + text);
  return load;
}

void report_error(const std::string& way, const std::string& error) {
  std::printf("%s\n", Json({{"way", way}, {"error", error}}).dump().c_str());
}

class Bench {
 public:
  Bench(const Options& options, Stream stream)
      : options_(options), stream_(std::move(stream)), shape_(make_shape()), rig_(shape_, stream_) {
    std::fprintf(stderr, "ready after %.1f s\n", options_.seconds());
  }

  // Ways to share. Each measures first what runs alone on the whole GPU.
  void take_turns();
  void partition(int num_sms);
  void prioritize();
  void print_table() const;

 private:
  // Of one way to share the GPU; a job's times by kind, steps' by load.
  struct Way {
    std::string name;
    int prefill_sms = 0;
    int decode_sms = 0;
    std::vector<double> job_alone = {};
    std::vector<StepTimes> steps_alone = {};
  };

  RigShape make_shape() const;
  bool is_pbs(size_t kind) const { return options_.kinds[kind] == "pbs"; }
  Way measure_alone(const std::string& name, PrefillSide& prefill, DecodeSide& decode);
  void measure_whole();
  void share(const std::string& name, const Stream& prefill, const Stream& decode);
  void take_turns(size_t kind, PrefillSide& prefill, DecodeSide& decode);
  void report(const Way& way, size_t kind, size_t load, const Interference& result);

  const Options& options_;
  Stream stream_;
  RigShape shape_;
  Rig rig_;
  Way whole_;  // one stream of all SMs
  std::vector<Json> lines_;
};

RigShape Bench::make_shape() const {
  RigShape shape;
  shape.density = static_cast<float>(options_.density);
  shape.num_layers = options_.num_layers;
  shape.position = options_.position;
  shape.job_rows = options_.num_rows;
  for (const std::string& text : options_.loads) shape.loads.push_back(load_of(text));
  shape.loads = loads_that_fit(shape, stream_.device());
  check(!shape.loads.empty(), "no load fits the device");
  return shape;
}

Json steps_json(const StepTimes& steps) {
  return {{"steps", steps.num_steps},
          {"p50", rounded(steps.p50, 2)},
          {"p99", rounded(steps.p99, 2)},
          {"max", rounded(steps.max, 2)}};
}

void Bench::report(const Way& way, size_t kind, size_t load, const Interference& result) {
  const double whole_ms = whole_.job_alone[kind];
  lines_.push_back({{"way", way.name},
                    {"prefill_sms", way.prefill_sms},
                    {"decode_sms", way.decode_sms},
                    {"job", options_.kinds[kind]},
                    {"load", shape_.loads[load].name()},
                    {"step_alone_whole_ms", rounded(whole_.steps_alone[load].p50, 2)},
                    {"step_alone_ms", rounded(way.steps_alone[load].p50, 2)},
                    {"step_ms", steps_json(result.steps)},
                    {"job_alone_whole_ms", rounded(whole_ms, 1)},
                    {"job_alone_ms", rounded(way.job_alone[kind], 1)},
                    {"job_ms", rounded(result.job_ms, 1)},
                    {"loss", rounded(result.job_ms / whole_ms - 1, 4)}});
  std::printf("%s\n", lines_.back().dump().c_str());
}

Bench::Way Bench::measure_alone(const std::string& name, PrefillSide& prefill, DecodeSide& decode) {
  Way way{.name = name,
          .prefill_sms = prefill.stream().num_sms(),
          .decode_sms = decode.stream().num_sms(),
          .job_alone = {},
          .steps_alone = {}};
  const bool is_first = whole_.job_alone.empty();  // code is loaded
  for (size_t kind = 0; kind < options_.kinds.size(); ++kind) {
    const int num_runs = is_first ? 2 : 1;
    way.job_alone.push_back(prefill_alone(prefill, is_pbs(kind), num_runs));
  }
  for (const DecodeLoad& load : shape_.loads) {
    way.steps_alone.push_back(decode_alone(decode, Rig::rows(load), options_.is_quick ? 10 : 20));
  }
  Json line{{"way", name}, {"prefill_sms", way.prefill_sms}, {"decode_sms", way.decode_sms}};
  for (size_t kind = 0; kind < options_.kinds.size(); ++kind) {
    line["job_alone_ms"][options_.kinds[kind]] = rounded(way.job_alone[kind], 1);
  }
  for (size_t load = 0; load < shape_.loads.size(); ++load) {
    line["step_alone_ms"][shape_.loads[load].name()] = steps_json(way.steps_alone[load]);
  }
  std::printf("%s\n", line.dump().c_str());
  return way;
}

void Bench::share(const std::string& name, const Stream& prefill_stream,
                  const Stream& decode_stream) {
  PrefillSide prefill(rig_, prefill_stream);
  DecodeSide decode(rig_, decode_stream);
  const Way way = measure_alone(name, prefill, decode);
  for (size_t load = 0; load < shape_.loads.size(); ++load) {
    const DecodeRows rows = Rig::rows(shape_.loads[load]);
    for (size_t kind = 0; kind < options_.kinds.size(); ++kind) {
      if (options_.is_late(name + " " + shape_.loads[load].name())) return;
      report(way, kind, load, at_once(prefill, decode, rows, is_pbs(kind)));
    }
  }
}

void Bench::measure_whole() {
  PrefillSide prefill(rig_, stream_);
  DecodeSide decode(rig_, stream_);
  whole_ = measure_alone("whole", prefill, decode);
}

void Bench::partition(int num_sms) {
  const std::string name = "split " + std::to_string(num_sms);
  measure_whole();
  auto streams = Stream::partition(stream_.device(), num_sms);
  if (!streams.ok()) return report_error(name, streams.status().ToString());
  const auto& [decode, prefill] = *streams;
  const Json probe{{"way", name},
                   {"sms_of_decode", test::sms_of(decode)},
                   {"num_seen_of_prefill", test::sms_of(prefill).size()}};
  std::printf("%s\n", probe.dump().c_str());
  share(name, prefill, decode);
}

void Bench::prioritize() {
  measure_whole();
  auto urgent = Stream::create_urgent(stream_.device());
  if (!urgent.ok()) return report_error("priorities", urgent.status().ToString());
  share("priorities", stream_, *urgent);
}

void Bench::take_turns() {
  PrefillSide prefill(rig_, stream_);
  DecodeSide decode(rig_, stream_);
  whole_ = measure_alone("whole", prefill, decode);
  for (size_t kind = 0; kind < options_.kinds.size(); ++kind) take_turns(kind, prefill, decode);
}

void Bench::take_turns(size_t kind, PrefillSide& prefill, DecodeSide& decode) {
  constexpr size_t kLoad = 0;
  const DecodeRows rows = Rig::rows(shape_.loads[kLoad]);
  const PassCosts costs = pass_costs(prefill, is_pbs(kind));
  Way way = whole_;
  for (const double slice_ms : options_.slices) {
    way.name = "slices " + std::to_string(static_cast<int>(slice_ms));
    if (options_.is_late(way.name)) return;
    report(way, kind, kLoad, in_slices(prefill, decode, rows, is_pbs(kind), slice_ms, costs));
  }
  for (const double slice_ms : options_.paced) {
    way.name = "paced " + std::to_string(static_cast<int>(slice_ms));
    if (options_.is_late(way.name)) return;
    report(way, kind, kLoad, paced(prefill, decode, rows, is_pbs(kind), slice_ms));
  }
}

void Bench::print_table() const {
  if (lines_.empty()) return;
  std::printf("# %-11s %7s %-5s %-8s | %7s %7s %7s %7s %7s %5s | %7s %7s %7s %6s\n", "way",
              "SMs p/d", "job", "load", "step132", "alone", "p50", "p99", "max", "steps", "job132",
              "alone", "job", "loss%");
  const auto number = [](const Json& json) { return json.get<double>(); };
  for (const Json& line : lines_) {
    const std::string sms = line["prefill_sms"].dump() + "/" + line["decode_sms"].dump();
    const Json& steps = line["step_ms"];
    std::printf(
        "# %-11s %7s %-5s %-8s | %7.2f %7.2f %7.2f %7.2f %7.2f %5d | %7.1f %7.1f %7.1f %6.1f\n",
        line["way"].get<std::string>().c_str(), sms.c_str(), line["job"].get<std::string>().c_str(),
        line["load"].get<std::string>().c_str(), number(line["step_alone_whole_ms"]),
        number(line["step_alone_ms"]), number(steps["p50"]), number(steps["p99"]),
        number(steps["max"]), steps["steps"].get<int>(), number(line["job_alone_whole_ms"]),
        number(line["job_alone_ms"]), number(line["job_ms"]), 100 * number(line["loss"]));
  }
}

// In a process of its own: where one dies, as of a product that the library cannot launch on a part
// of the GPU, the other ways are measured all the same. False if it died. REQUIRES: this process
// uses no GPU.
bool run_apart(const std::string& name, const Options& options,
               const std::function<void(Bench&)>& way) {
  if (options.is_late(name)) return true;
  const pid_t child = fork();
  check(child >= 0, "no process for " + name);
  if (child == 0) {
    const auto choice = kernels::choose_device(options.device);
    check(choice.ok(), choice.status().ToString());
    auto stream = Stream::create(choice->device, 0);
    check(stream.ok(), stream.status().ToString());
    {
      Bench bench(options, *std::move(stream));
      way(bench);
      bench.print_table();
    }
    std::exit(0);
  }
  int status = 0;
  check(waitpid(child, &status, 0) == child, "lost the process of " + name);
  if (WIFSIGNALED(status)) {
    report_error(name, "died of signal " + std::to_string(WTERMSIG(status)) + ", see stderr");
  } else if (WEXITSTATUS(status) != 0) {
    report_error(name, "exited with " + std::to_string(WEXITSTATUS(status)) + ", see stderr");
  }
  return status == 0;
}

// False if a way died.
bool run_all(const Options& options) {
  bool all_ran = run_apart("turns", options, [](Bench& bench) { bench.take_turns(); });
  for (const int num_sms : options.splits) {
    all_ran &= run_apart("split " + std::to_string(num_sms), options,
                         [=](Bench& bench) { bench.partition(num_sms); });
  }
  if (options.has_priorities) {
    all_ran &= run_apart("priorities", options, [](Bench& bench) { bench.prioritize(); });
  }
  std::fprintf(stderr, "done after %.1f s\n", options.seconds());
  return all_ran;
}

int run(int argc, char** argv) {
  Options options;
  bool is_quick = false;
  for (int i = 1; i < argc; ++i) is_quick |= std::string(argv[i]) == "--quick";
  if (is_quick) options.make_quick();  // before the parse: other flags win over it
  CLI::App app("Prefill and decode at once on one GPU; JSON lines and tables");
  app.add_flag("--quick", options.is_quick, "fewer splits, loads and runs, within 40 s");
  app.add_option("--splits", options.splits, "SMs of decode")->delimiter(',');
  app.add_option("--loads", options.loads, "of decode, ROWSxTOKENS; the first takes turns too")
      ->delimiter(',');
  app.add_option("--kinds", options.kinds, "of the job: dense,pbs")
      ->delimiter(',')
      ->check(CLI::IsMember({"dense", "pbs"}));
  app.add_option("--slices", options.slices, "ms between steps on one stream, in few items")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--paced", options.paced, "ms between steps on one stream, by the engine's pacer")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--priorities", options.has_priorities, "streams of two priorities: true, false")
      ->capture_default_str();
  app.add_option("--density", options.density, "forced on a PBS job")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 1.0));
  app.add_option("--layers", options.num_layers, "of the model")
      ->capture_default_str()
      ->check(CLI::Range(1, 32));
  app.add_option("--position", options.position, "of the job's first row; whole spans")
      ->capture_default_str()
      ->check(CLI::Range(0, 120 * 1024));
  app.add_option("--rows", options.num_rows, "of the job; whole spans")
      ->capture_default_str()
      ->check(CLI::Range(1024, 32768));
  app.add_option("--device", options.device, "cuda; cpu tries the flow of one stream")
      ->capture_default_str();
  app.add_option("--budget", options.budget_s, "seconds after which nothing is begun")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  check(options.position % 1024 == 0 && options.num_rows % 1024 == 0,
        "--position and --rows: multiples of 1,024, the span of PBS");
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return run_all(options) ? 0 : 1;
}

}  // namespace
}  // namespace pbserve::bench

int main(int argc, char** argv) { return pbserve::bench::run(argc, argv); }
