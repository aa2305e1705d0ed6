// Renders a template with any variables, below the chat interface: for tests of the language.
#pragma once

#include <ctime>
#include <string>

#include "models/chat_template/limits.h"
#include "models/chat_template/value.h"

namespace pbserve::models::jinja {

// 2024-07-26 09:05:03 UTC, which strftime_now() shows in the fixtures.
inline constexpr std::time_t kFixtureClock = 1721984703;

absl::StatusOr<std::string> render_text(const std::string& source,
                                        const std::string& context_json = "{}",
                                        const RenderLimits& limits = {});

}  // namespace pbserve::models::jinja
