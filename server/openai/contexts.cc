#include "server/openai/contexts.h"

#include <nlohmann/json.hpp>

namespace pbserve::server {

Json format_context(const ContextInfo& info) {
  return {{"id", info.id},
          {"object", "context"},
          {"name", info.name.empty() ? Json(nullptr) : Json(info.name)},
          {"status", info.is_ready ? "ready" : "open"},
          {"created", info.created_s},
          {"expires", info.expires_s},
          {"ttl_s", info.ttl_s},
          {"parts", info.num_parts},
          {"tokens", info.num_tokens},
          {"tail_bytes", info.num_tail_bytes},
          {"prefilled_tokens", info.prefilled_tokens},
          {"bytes", info.bytes}};
}

}  // namespace pbserve::server
