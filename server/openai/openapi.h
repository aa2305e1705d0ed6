// The OpenAPI description served at /openapi.json: every route with its request, its answers and
// its errors. The texts are openapi/*.json; routes come from the table of routes, refused fields
// from that of the parsers, and tests hold the rest together.
#pragma once

#include <cstdint>
#include <string>

#include "engine/config.h"
#include "server/json/body.h"

namespace pbserve::server {

// What the requests of one server may hold.
struct OpenApiLimits {
  std::string model_name = "model";
  int64_t max_model_len = 0;  // tokens of prompt and output together
  int64_t vocab_size = 0;
  float threshold_min = 0;  // of sparse attention
  double max_cache_hold_s = 0;
  engine::RequestLimits request = {};
  int64_t max_ttl_s = 0;  // of contexts
  bool strict = false;    // unknown fields are refused
};

Json openapi_document(const OpenApiLimits& limits);

}  // namespace pbserve::server
