// Any bytes as a chat template and, behind the first NUL, as a request's messages: an error or a
// text, within the limits.
#include <cstdint>
#include <string>

#include "kernels/core/check.h"
#include "models/chat_template/chat_messages.h"
#include "models/chat_template/evaluator.h"
#include "models/chat_template/parser.h"
#include "models/chat_template/text.h"

namespace {

namespace jinja = pbserve::models::jinja;

// Small, so that the fuzzer does not spend its time in loops.
constexpr jinja::RenderLimits kLimits = {.work_units = 200'000, .output_bytes = 20'000};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  const auto block = jinja::parse_template(input.substr(0, split));
  const auto messages =
      jinja::parse_messages(split == std::string::npos ? R"([{"role": "user", "content": "Hi"}])"
                                                       : input.substr(split + 1));
  if (!block.ok() || !messages.ok()) return 0;
  jinja::Dict context;
  context.set(jinja::Value("messages"), *messages);
  context.set(jinja::Value("tools"), *messages);
  context.set(jinja::Value("bos_token"), jinja::Value("<s>"));
  context.set(jinja::Value("add_generation_prompt"), true);
  jinja::Runtime runtime(kLimits, /*clock=*/0);
  const auto text = jinja::Evaluator(runtime, context).render(*block);
  if (!text.ok()) return 0;
  pbserve::check(text->size() <= kLimits.output_bytes, "the text is longer than its limit");
  pbserve::check(jinja::is_valid_utf8(text->bytes()), "the text is not UTF-8");
  return 0;
}
