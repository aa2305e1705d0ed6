#include "engine/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>

namespace pbserve::engine {

namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

// vLLM's boundaries: its dashboards fit, and the last ones hold prefills of many minutes.
const Buckets kFirstTokenBuckets{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                 1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kInterTokenBuckets{.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                 .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const Buckets kRequestBuckets{.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                              30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kStepTokenBuckets{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
const Buckets kRequestTokenBuckets{1,    2,    5,     10,    20,    50,  100, 200, 500, 1000,
                                   2000, 5000, 10000, 20000, 50000, 1e5, 2e5, 5e5, 1e6};
const Buckets kDensityBuckets{.02, .05, .1, .15, .2, .25, .3, .4, .5, .6, .7, .8, .9, 1};

const Buckets kCoverageBuckets{.5, .6, .7, .8, .85, .9, .92, .94, .95, .96, .97, .98, .99, .995, 1};

constexpr std::array<const char*, 2> kTierNames{"device", "host"};
constexpr std::array<const char*, 4> kFinishedReasons{"stop", "length", "abort", "error"};

}  // namespace

struct Metrics::Impl {
  struct TierSamples {
    Gauge* pages_used;
    Gauge* pages_cached;
    Gauge* pages_free;
    Gauge* bytes;
    Counter* hits;
    Counter* copied_pages;
    Counter* copied_bytes;
  };

  Impl(const std::string& model_name, const std::string& the_prefix)
      : prefix(the_prefix), labels{{"model_name", model_name}} {
    for (size_t i = 0; i < kFinishedReasons.size(); ++i) {
      success[i] = &success_family.Add({{"finished_reason", kFinishedReasons[i]}});
    }
    for (size_t i = 0; i < kTierNames.size(); ++i) tiers[i] = tier_samples(kTierNames[i]);
  }

  TierSamples tier_samples(const char* tier) {
    const auto pages = [&](const char* state) {
      return &tier_pages.Add({{"tier", tier}, {"state", state}});
    };
    const prometheus::Labels label{{"tier", tier}};
    return {.pages_used = pages("used"),
            .pages_cached = pages("cached"),
            .pages_free = pages("free"),
            .bytes = &tier_bytes.Add(label),
            .hits = &tier_hits.Add(label),
            .copied_pages = &tier_copied_pages.Add(label),
            .copied_bytes = &tier_copied_bytes.Add(label)};
  }
  static void raise(Counter* counter, int64_t total);  // to a count since the start
  static void set(const TierSamples& samples, const TierState& state);

  Family<Counter>& counter_family(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter()
        .Name(full_name(name))
        .Help(help)
        .Labels(labels)
        .Register(registry);
  }
  std::string full_name(const std::string& name) const { return prefix + ":" + name; }
  Counter& counter(const std::string& name, const std::string& help) {
    return counter_family(name, help).Add({});
  }
  Family<Gauge>& gauge_family(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge()
        .Name(full_name(name))
        .Help(help)
        .Labels(labels)
        .Register(registry);
  }
  Gauge& gauge(const std::string& name, const std::string& help) {
    return gauge_family(name, help).Add({});
  }
  Family<Histogram>& histogram_family(const std::string& name, const std::string& help) {
    return prometheus::BuildHistogram()
        .Name(full_name(name))
        .Help(help)
        .Labels(labels)
        .Register(registry);
  }
  Histogram& histogram(const std::string& name, const std::string& help, const Buckets& buckets) {
    return histogram_family(name, help).Add({}, buckets);
  }

  const std::string prefix;
  prometheus::Labels labels;
  prometheus::Registry registry;

  Gauge& running = gauge("num_requests_running", "Requests prefilling or decoding.");
  Gauge& waiting = gauge("num_requests_waiting", "Requests accepted and not started.");
  Gauge& kv_usage = gauge("kv_cache_usage_perc", "Share of KV pages held by requests, 0 to 1.");
  Gauge& kv_usage_old_name =
      gauge("gpu_cache_usage_perc", "kv_cache_usage_perc, as older dashboards call it.");
  Family<Gauge>& cache_config =
      gauge_family("cache_config_info", "Always 1; the labels tell of the KV cache.");
  Gauge& kv_cached =
      gauge("kv_cache_cached_perc", "Share of KV pages held by the prefix cache alone, 0 to 1.");

  Counter& cache_queries =
      counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  Counter& cache_hits = counter("prefix_cache_hits_total", "Prompt tokens found there.");
  Family<Gauge>& tier_pages =
      gauge_family("kv_cache_tier_pages", "Pages of each tier of the KV cache, by state.");
  Family<Gauge>& tier_bytes =
      gauge_family("kv_cache_tier_bytes", "Bytes of the pages that hold something, by tier.");
  Family<Counter>& tier_hits = counter_family(
      "kv_cache_tier_hits_total", "Pages that prompts began with, by the tier they were found in.");
  Family<Counter>& tier_copied_pages =
      counter_family("kv_cache_tier_copied_pages_total", "Pages copied to a tier from the other.");
  Family<Counter>& tier_copied_bytes =
      counter_family("kv_cache_tier_copied_bytes_total", "Bytes of these copies.");
  Counter& tier_dropped = counter("kv_cache_dropped_pages_total",
                                  "Cached pages lost: evicted, and no tier had room for them.");
  std::array<TierSamples, kTierNames.size()> tiers{};
  Gauge& holds = gauge("kv_cache_holds", "Chains of cached pages that cache_hold_s keeps.");
  Gauge& held_pages = gauge("kv_cache_held_pages", "Pages of these, of both tiers.");
  Counter& broken_holds = counter("kv_cache_broken_holds_total",
                                  "Holds that ended early: a prompt did not fit beside them.");
  Counter& cut_holds =
      counter("kv_cache_cut_holds_total",
              "Holds that kept less than the request's pages: the share of held pages was full.");
  Gauge& salts =
      gauge("prefix_cache_salts", "Values of cache_salt with cached pages; none is one.");
  Gauge& largest_salt_pages = gauge("prefix_cache_largest_salt_pages",
                                    "Cached pages, of both tiers, of the salt that has most.");
  Counter& prompt_tokens = counter("prompt_tokens_total", "Prompt tokens prefilled.");
  Counter& generation_tokens = counter("generation_tokens_total", "Tokens generated.");
  Counter& preemptions =
      counter("num_preemptions_total", "Requests that gave up their pages to be computed again.");
  Family<Counter>& success_family =
      counter_family("request_success_total", "Finished requests by reason.");
  std::array<Counter*, kFinishedReasons.size()> success{};

  Histogram& first_token = histogram("time_to_first_token_seconds",
                                     "From arrival to the first token.", kFirstTokenBuckets);
  Histogram& inter_token = histogram("inter_token_latency_seconds",
                                     "Between two tokens of a request.", kInterTokenBuckets);
  Histogram& inter_token_old_name =
      histogram("time_per_output_token_seconds",
                "inter_token_latency_seconds, as older dashboards call it.", kInterTokenBuckets);
  Histogram& request_inter_token =
      histogram("request_time_per_output_token_seconds",
                "Mean of a request's times between two tokens.", kInterTokenBuckets);
  Histogram& e2e =
      histogram("e2e_request_latency_seconds", "From arrival to the last token.", kRequestBuckets);
  Histogram& queue_time = histogram("request_queue_time_seconds",
                                    "From arrival to the start of prefill.", kRequestBuckets);
  Histogram& inference_time =
      histogram("request_inference_time_seconds", "From the start of prefill to the last token.",
                kRequestBuckets);
  Histogram& prefill_time = histogram("request_prefill_time_seconds",
                                      "From the start of prefill to its end.", kRequestBuckets);
  Histogram& decode_time = histogram("request_decode_time_seconds",
                                     "From the first token to the last.", kRequestBuckets);
  Histogram& request_prompt =
      histogram("request_prompt_tokens", "Prompt tokens of a request.", kRequestTokenBuckets);
  Histogram& request_generation = histogram(
      "request_generation_tokens", "Tokens generated for a request.", kRequestTokenBuckets);
  Histogram& request_max_generation =
      histogram("request_max_num_generation_tokens",
                "Tokens of a request's longest choice: it has one.", kRequestTokenBuckets);
  Histogram& step_tokens =
      histogram("iteration_tokens_total", "Tokens computed in a step.", kStepTokenBuckets);
  Family<Histogram>& density_family =
      histogram_family("request_prefill_density",
                       "Attention blocks computed over causal blocks, by attention mode.");
  Histogram& coverage =
      histogram("request_prefill_coverage",
                "Share of the true attention mass that sampled queries of sparse prefill attended.",
                kCoverageBuckets);
  Histogram& density_dense = density_family.Add({{"mode", "dense"}}, kDensityBuckets);
  Histogram& density_pbs = density_family.Add({{"mode", "pbs"}}, kDensityBuckets);
};

Metrics::Metrics(const std::string& model_name, const std::string& prefix)
    : impl_(std::make_unique<Impl>(model_name, prefix)) {}
Metrics::~Metrics() = default;

void Metrics::set_cache_config(int64_t page_size, int64_t num_pages) {
  impl_->cache_config
      .Add({{"block_size", std::to_string(page_size)},
            {"num_gpu_blocks", std::to_string(num_pages)}})
      .Set(1);
}

void Metrics::set_gauges(const Gauges& gauges) {
  const auto num_pages = static_cast<double>(gauges.num_pages);
  impl_->running.Set(static_cast<double>(gauges.num_running));
  impl_->waiting.Set(static_cast<double>(gauges.num_waiting));
  const double usage = static_cast<double>(gauges.num_pages_used) / num_pages;
  impl_->kv_usage.Set(usage);
  impl_->kv_usage_old_name.Set(usage);
  impl_->kv_cached.Set(static_cast<double>(gauges.num_pages_cached) / num_pages);
}

void Metrics::Impl::raise(Counter* counter, int64_t total) {
  counter->Increment(static_cast<double>(total) - counter->Value());
}

void Metrics::Impl::set(const TierSamples& samples, const TierState& state) {
  samples.pages_used->Set(static_cast<double>(state.num_pages_used));
  samples.pages_cached->Set(static_cast<double>(state.num_pages_cached));
  samples.pages_free->Set(static_cast<double>(state.num_pages_free));
  samples.bytes->Set(
      static_cast<double>((state.num_pages_used + state.num_pages_cached) * state.page_bytes));
  raise(samples.hits, state.num_pages_hit);
  raise(samples.copied_pages, state.num_pages_copied);
  raise(samples.copied_bytes, state.num_pages_copied * state.page_bytes);
}

void Metrics::set_tiers(const TierState& device, const TierState& host, int64_t num_pages_dropped) {
  Impl::set(impl_->tiers[0], device);
  Impl::set(impl_->tiers[1], host);
  Impl::raise(&impl_->tier_dropped, num_pages_dropped);
}

void Metrics::set_cache_use(const CacheUse& use) {
  impl_->holds.Set(static_cast<double>(use.num_holds));
  impl_->held_pages.Set(static_cast<double>(use.num_pages_held));
  Impl::raise(&impl_->broken_holds, use.num_holds_broken);
  Impl::raise(&impl_->cut_holds, use.num_holds_cut);
  impl_->salts.Set(static_cast<double>(use.num_salts));
  impl_->largest_salt_pages.Set(static_cast<double>(use.num_pages_of_largest_salt));
}

void Metrics::count_preemption() { impl_->preemptions.Increment(); }

void Metrics::count_prefix_cache(int64_t queried_tokens, int64_t hit_tokens) {
  impl_->cache_queries.Increment(static_cast<double>(queried_tokens));
  impl_->cache_hits.Increment(static_cast<double>(hit_tokens));
}

void Metrics::observe_step(int64_t num_prefill_tokens, int64_t num_decode_tokens) {
  impl_->prompt_tokens.Increment(static_cast<double>(num_prefill_tokens));
  impl_->step_tokens.Observe(static_cast<double>(num_prefill_tokens + num_decode_tokens));
}

void Metrics::observe_first_token(double seconds) {
  impl_->first_token.Observe(seconds);
  impl_->generation_tokens.Increment();
}

void Metrics::observe_inter_token(double seconds) {
  impl_->inter_token.Observe(seconds);
  impl_->inter_token_old_name.Observe(seconds);
  impl_->generation_tokens.Increment();
}

void Metrics::observe_finished(const Completion& completion, double e2e_seconds) {
  const Timings& timings = completion.timings;
  impl_->success[static_cast<size_t>(completion.reason)]->Increment();
  impl_->e2e.Observe(e2e_seconds);
  impl_->request_prompt.Observe(static_cast<double>(completion.usage.prompt_tokens));
  impl_->request_generation.Observe(static_cast<double>(completion.usage.completion_tokens));
  impl_->request_max_generation.Observe(static_cast<double>(completion.usage.completion_tokens));
  if (timings.mean_inter_token_ms >= 0) {
    impl_->request_inter_token.Observe(timings.mean_inter_token_ms / 1e3);
  }
  if (timings.queue_ms >= 0) impl_->queue_time.Observe(timings.queue_ms / 1e3);
  if (timings.generation_ms >= 0) impl_->decode_time.Observe(timings.generation_ms / 1e3);
  if (timings.prefill_ms < 0) return;
  impl_->prefill_time.Observe(timings.prefill_ms / 1e3);
  const double generation_ms = timings.generation_ms >= 0 ? timings.generation_ms : 0;
  impl_->inference_time.Observe((timings.prefill_ms + generation_ms) / 1e3);
  const bool is_pbs = completion.sparse.mode_used == SparseMode::kPbs;
  (is_pbs ? impl_->density_pbs : impl_->density_dense).Observe(completion.sparse.density);
  if (completion.sparse.coverage) impl_->coverage.Observe(completion.sparse.coverage->mean);
}

std::string Metrics::render() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace pbserve::engine
