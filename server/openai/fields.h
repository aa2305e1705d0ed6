// The parts of an OpenAI body that more than one route reads: conversations, and the list of
// fields that are refused.
#pragma once

#include <string>
#include <vector>

#include "engine/request.h"
#include "server/json/field_reader.h"

namespace pbserve::server {

// messages, tools, tool_choice, chat_template_kwargs. Content given as text parts is joined, so
// that templates always see one string.
engine::ChatPrompt read_conversation(FieldReader* reader);

// Refuses every field this server does not honour unless its value changes nothing; accepts by
// name the ones that never change the result.
void refuse_unserved(FieldReader* reader);

// What refuse_unserved() refuses: field -> the values, null aside, that change nothing.
Json unserved_fields();
// What it accepts by name.
std::vector<std::string> ignored_fields();

}  // namespace pbserve::server
