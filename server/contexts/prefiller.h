// Computes the pages of contexts while they are sent: a request that nobody reads for each, one
// after the other, over all tokens that are decided. What it computed lies in the prefix cache.
#pragma once

#include <memory>

#include "server/contexts/context_state.h"

namespace pbserve::server {

// Returns once the state is stopped. Drops what expires meanwhile.
void run_prefills(const std::shared_ptr<ContextState>& state);

}  // namespace pbserve::server
