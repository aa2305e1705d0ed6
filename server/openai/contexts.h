// A named context as JSON.
#pragma once

#include "server/contexts/context.h"
#include "server/json/body.h"

namespace pbserve::server {

Json format_context(const ContextInfo& info);

}  // namespace pbserve::server
