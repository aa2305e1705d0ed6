"""Writes fixtures/conversations.json: conversations.py rendered by jinja2 with real templates.

    python make_conversations_fixture.py TOKENIZERS    (needs jinja2)

TOKENIZERS holds llama-3.1/ and qwen3/, the unpacked archives of tokenizer files. A fourth template,
fixtures/strict.jinja, uses what these and the demo's do not.
"""

import copy
import json
import pathlib
import sys

from conversations import all_conversations
from jinja_reference import render

HERE = pathlib.Path(__file__).parent
DEMO = HERE.parents[2] / "models" / "demo"


def normalize(message):
    """What the server does with a message before the template sees it."""
    message = copy.deepcopy(message)
    content = message.get("content")
    if content is None:
        content = ""
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    message["content"] = content
    for tool_call in message.get("tool_calls") or []:
        arguments = tool_call["function"].get("arguments") or {}
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        tool_call["function"]["arguments"] = arguments
    return message


def outcome(config, conversation):
    tokens = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")
              if config.get(key) is not None}
    context = {**tokens, "documents": None, **conversation["kwargs"],
               "messages": [normalize(message) for message in conversation["messages"]],
               "tools": conversation["tools"],
               "add_generation_prompt": conversation["add_generation_prompt"]}
    return render(config["chat_template"], context)


def main():
    tokenizers = pathlib.Path(sys.argv[1])
    folders = {"demo": DEMO, "llama-3.1": tokenizers / "llama-3.1", "qwen3": tokenizers / "qwen3"}
    configs = {name: json.loads((folder / "tokenizer_config.json").read_text())
               for name, folder in folders.items()}
    configs["strict"] = {"chat_template": (HERE / "fixtures" / "strict.jinja").read_text(),
                         "bos_token": "<s>", "eos_token": "</s>"}
    cases = []
    for conversation in all_conversations():
        outcomes = {name: outcome(config, conversation) for name, config in configs.items()}
        cases.append({**conversation, "outcomes": outcomes})
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (HERE / "fixtures" / "conversations.json").write_text(f"[\n{lines}\n]\n")
    errors = sum("error" in o for case in cases for o in case["outcomes"].values())
    print(len(cases), "conversations,", len(configs), "templates,", errors, "errors")


if __name__ == "__main__":
    main()
