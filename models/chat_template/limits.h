// What a chat template may use up. A hostile template or conversation meets one of these limits,
// by name, before it meets the stack, the memory or the clock.
#pragma once

#include <cstddef>

namespace pbserve::models::jinja {

inline constexpr size_t kTemplateBytesMax = 1 << 20;  // the largest published ones are 30 KB
inline constexpr int kSyntaxNestingMax = 100;         // brackets and tags inside one another
inline constexpr int kExpressionHeightMax = 250;      // operators in one chain, or nested
inline constexpr int kValueNestingMax = 100;          // lists and dicts inside one another
inline constexpr size_t kRangeLenMax = 100'000;       // Jinja's sandbox has the same

// Work is counted in units: one per byte read or written, this many per step or list element.
inline constexpr size_t kStepUnits = 16;

struct RenderLimits {
  size_t work_units = size_t{1} << 30;  // grows with the conversation, see ChatTemplate::render
  size_t output_bytes = size_t{256} << 20;
  int nesting = 500;  // expressions, blocks and macro calls inside one another
};

}  // namespace pbserve::models::jinja
