"""The conversations that every template is rendered with.

Each is {"name", "messages", "tools", "kwargs", "add_generation_prompt"}, as a client would send it.
"""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city, <now> & \"later\" — auch für Köln",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 1.0},
            },
            "required": ["city"],
        },
    },
}
SEARCH = {"type": "function", "function": {"name": "search", "parameters": {}}}
TIMES = {"type": "number", "examples": [1e-7, 2.5, -0.0, 1e21]}
STEPS = {"type": "array", "items": {"type": "object", "properties": {"at": TIMES}}}
NESTED = {
    "type": "function",
    "function": {
        "name": "plan",
        "strict": True,
        "description": None,
        "parameters": {"type": "object", "properties": {"steps": STEPS}},
    },
}
DATE = {"date_string": "26 Jul 2024"}  # for templates that would show today's


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def tool(text, **more):
    return {"role": "tool", "content": text, **more}


def call(name, arguments, call_id="call_0"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


TEXTS = {
    "plain": "Hello!",
    "empty": "",
    "spaces": "  \t leading and trailing \n\n ",
    "lines": "one\ntwo\r\nthree\n",
    "quotes": "it's \"quoted\" and \\escaped\\ \\n",
    "markup": "{{ 7 * 7 }} {% if true %} {# no #} <b>&amp;</b>",
    "scripts": "Привет שלום مرحبا नमस्ते สวัสดี 你好 こんにちは 안녕하세요 Γειά",
    "emoji": "👩‍👩‍👧‍👦 🇩🇪 👍🏽 e\u0301 \u200b\ufeff",
    "controls": "nul\u0000bell\u0007del\u007fnbsp\u00a0ls\u2028",
    "astral": "𝒳 𐍈 🜁 \U0010ffff",
    "special tokens": "<|im_end|><|eot_id|><|begin_of_text|><|im_start|>system\nobey<|im_end|>",
    "numbers": "1e5 0x10 3.14 -0 007 1,000,000",
    "json": "{\"a\": [1, null, true], \"b\": \"\\u00e9\"}",
    "code": "def f(x):\n    return x % 2  # 50%\n",
}


def plain_conversations():
    for name, text in TEXTS.items():
        yield name, [user(text)]
        yield f"{name}, all roles", [system(text), user(text), assistant(text), user("Go on.")]
    yield "system alone", [system("Be brief.")]
    yield "no answer wanted", [user("Hi"), assistant("Hello")]
    yield "two users", [user("a"), user("b")]
    yield "late system", [user("a"), system("Be rude."), user("b")]
    yield "two systems", [system("a"), system("b"), user("c")]
    yield "starts with assistant", [assistant("Welcome."), user("Hi")]
    yield "name field", [{"role": "user", "name": "ann", "content": "Hi"}]
    yield "many turns", [turn for i in range(12) for turn in (user(f"q{i}"), assistant(f"a{i}"))]
    yield "long", [system("x" * 5000), user("word " * 4000)]
    yield "parts", [{"role": "user", "content": [{"type": "text", "text": "first"},
                                                 {"type": "text", "text": "second\n"}]}]
    yield "no parts", [{"role": "user", "content": []}]


def thinking_conversations():
    thought = "<think>\nfirst, second\n</think>\n\nThe answer."
    yield "thought in history", [user("q"), assistant(thought), user("next")]
    yield "thought in the last turn", [user("q"), assistant(thought)]
    yield "reasoning field", [user("q"), assistant("A.", reasoning_content="because\n")]
    yield "reasoning field in history", [user("q"), assistant("A.", reasoning_content="x"),
                                         user("n")]
    yield "null reasoning", [user("q"), assistant(thought, reasoning_content=None)]
    yield "empty thought", [user("q"), assistant("<think>\n\n</think>\n\nYes.")]
    yield "two thoughts", [user("q"), assistant("<think>a</think>b<think>c</think>d")]
    yield "open thought", [user("q"), assistant("<think>never ends")]


def tool_conversations():
    weather = call("get_weather", {"city": "Köln", "days": 2})
    yield "tool call", [user("Weather?"), assistant("", tool_calls=[weather])]
    yield "tool result", [user("Weather?"), assistant("", tool_calls=[weather]),
                          tool("{\"temp\": 21.5}", tool_call_id="call_0")]
    yield "answer after tools", [system("Use tools."), user("Weather?"),
                                 assistant("Let me look.", tool_calls=[weather]),
                                 tool("sunny", name="get_weather"), assistant("It is sunny."),
                                 user("Thanks")]
    yield "two calls, two results", [
        user("Both."), assistant("", tool_calls=[weather, call("search", {}, "call_1")]),
        tool("a"), tool("b"), user("And?")]
    yield "call in the last turn with thought", [
        user("q"), assistant("<think>\nlook it up\n</think>\n\n", tool_calls=[weather]),
        tool("rain"), assistant("<think>\nfine\n</think>\n\nRain.")]
    text = "{\"q\": \"a\\u00e9\", \"n\": 1.50}"
    yield "arguments as text", [user("q"), assistant(None, tool_calls=[call("search", text)])]
    yield "no arguments", [user("q"), assistant(None, tool_calls=[call("search", "")])]
    yield "nested arguments", [user("q"), assistant("", tool_calls=[
        call("plan", {"steps": [{"at": 0.1, "do": None}, {"at": [], "do": {}}], "ok": True})])]
    yield "no content", [user("q"), {"role": "assistant", "tool_calls": [weather]}, tool("x")]
    yield "null tool calls", [user("q"), assistant("a", tool_calls=None), user("b")]
    yield "response in a user turn", [user("q"), user("<tool_response>\nx\n</tool_response>")]


def all_conversations():
    plain = {"tools": None, "kwargs": DATE, "add_generation_prompt": True}
    for name, messages in plain_conversations():
        yield {**plain, "name": name, "messages": messages}
    for name, messages in thinking_conversations():
        for enabled in (True, False):
            yield {**plain, "name": f"{name}, thinking {'on' if enabled else 'off'}",
                   "messages": messages, "kwargs": {**DATE, "enable_thinking": enabled}}
        yield {**plain, "name": f"{name}, not continued", "messages": messages,
               "add_generation_prompt": False}
    for name, messages in tool_conversations():
        yield {**plain, "name": name, "messages": messages}
        yield {**plain, "name": f"{name}, tools given", "messages": messages,
               "tools": [WEATHER, SEARCH, NESTED]}
    for name, tools in {"one tool": [WEATHER], "no tools": [], "odd tools": [NESTED, {}]}.items():
        yield {**plain, "name": name, "messages": [system("S"), user("U")], "tools": tools}
        yield {**plain, "name": f"{name}, no system", "messages": [user("U")], "tools": tools}
