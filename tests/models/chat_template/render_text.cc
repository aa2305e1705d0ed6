#include "tests/models/chat_template/render_text.h"

#include "models/chat_template/evaluator.h"
#include "models/chat_template/json_value.h"
#include "models/chat_template/parser.h"

namespace pbserve::models::jinja {

absl::StatusOr<std::string> render_text(const std::string& source, const std::string& context_json,
                                        const RenderLimits& limits) {
  ASSIGN_OR_RETURN(const Block block, parse_template(source));
  ASSIGN_OR_RETURN(const Value context, parse_json(context_json, "context"));
  Runtime runtime(limits, kFixtureClock);
  ASSIGN_OR_RETURN(const MarkedText text, Evaluator(runtime, *context.dict()).render(block));
  return text.bytes();
}

}  // namespace pbserve::models::jinja
