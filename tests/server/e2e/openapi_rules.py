"""Hooks of schemathesis: the rules that the description has in words only, because JSON Schema has
none for them. A request that breaks one is rightly refused, so it is no example of a valid one.
"""

import json

import schemathesis

CONTEXT = 512  # tokens: --max-model-len of the server under test
STOP_BYTES, SALT_BYTES, NAME_BYTES = 256, 1024, 128


def most_prompt_tokens(body):
    """A token holds a byte or more, a template adds some bytes a message."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return len(prompt)
    given = {name: body.get(name) for name in ("prompt", "messages", "tools")}
    return len(json.dumps(given, ensure_ascii=False).encode(errors="replace"))


def fits(body):
    """What prompt and output take together fits, and min_tokens is at most max_tokens."""
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
    limits = [limit for limit in limits if limit is not None]
    if len(set(limits)) > 1:
        return False  # the two names of one limit contradict each other
    default = 16 if "prompt" in body else CONTEXT - most_prompt_tokens(body)
    limit = limits[0] if limits else default
    return most_prompt_tokens(body) + limit <= CONTEXT and (body.get("min_tokens") or 0) <= limit


def has_short_texts(body):
    stop = body.get("stop") or []
    texts = [stop] if isinstance(stop, str) else stop
    name = body.get("name")  # of a context
    return (all(len(text.encode(errors="replace")) <= STOP_BYTES for text in texts)
            and not (isinstance(name, str) and len(name.encode(errors="replace")) > NAME_BYTES)
            and len((body.get("cache_salt") or "").encode(errors="replace")) <= SALT_BYTES)


def is_object_text(text):
    try:
        return text == "" or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def has_arguments(body):
    """Texts of arguments are those of objects."""
    functions = [call["function"] for message in body.get("messages") or []
                 for call in message.get("tool_calls") or []]
    texts = [function["arguments"] for function in functions
             if isinstance(function.get("arguments"), str)]
    return all(is_object_text(text) for text in texts)


@schemathesis.hook
def filter_case(context, case):
    is_valid = case.meta is None or case.meta.generation.mode.is_positive
    if not is_valid or not isinstance(case.body, dict):
        return True
    return fits(case.body) and has_short_texts(case.body) and has_arguments(case.body)
