// The schemas of the OpenAPI description: requests made of groups of fields, the limits of a
// server put in.
#pragma once

#include "server/json/body.h"
#include "server/openai/openapi.h"

namespace pbserve::server {

// All components, with "@name" where a limit stands.
Json openapi_schemas();

// Puts the limits in place of their names, wherever these stand.
void fill_in_limits(const OpenApiLimits& limits, Json* document);

}  // namespace pbserve::server
