// Any bytes as a request body, through every OpenAI parser: an error that formats, or a request.
#include <cstdint>
#include <nlohmann/json.hpp>

#include "kernels/core/check.h"
#include "server/api_error.h"
#include "server/json/body.h"
#include "server/openai/parse.h"

namespace {

namespace server = pbserve::server;

// Errors quote the input: their bodies must be JSON all the same.
void check_error(const absl::Status& status) {
  pbserve::check(nlohmann::json::accept(server::to_error_body(status)), "an error is not JSON");
  const int http = server::http_status(status);
  pbserve::check(http >= 400 && http < 500, "bad input is not the client's error");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const server::JsonLimits limits{.max_depth = 16, .max_values = 10000, .max_object_members = 64};
  const auto body = server::parse_json_object(text, limits);
  if (!body.ok()) {
    check_error(body.status());
    return 0;
  }
  for (const bool strict : {false, true}) {
    const server::OpenAiParseOptions options{
        .model_name = "demo", .strict = strict, .request_id = "id"};
    for (const auto& status : {server::parse_completion(*body, options).status(),
                               server::parse_chat(*body, options).status(),
                               server::parse_tokenize(*body, options).status(),
                               server::parse_detokenize(*body, options).status()}) {
      if (!status.ok()) check_error(status);
    }
  }
  return 0;
}
