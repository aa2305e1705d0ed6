// The OpenAPI description served at /openapi.json.
#pragma once

#include "server/json/body.h"

namespace pbserve::server {

// Covers every route of routes(); one test holds the two together.
Json openapi_document();

}  // namespace pbserve::server
