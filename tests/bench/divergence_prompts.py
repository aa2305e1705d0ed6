#!/usr/bin/env python3
"""Prompts of ruler.py with what dense attention answers, as token ids: what `divergence` reads.

Asks a server that runs already. One file a length, FOLDER/<length>.jsonl:

  divergence_prompts.py --lengths 8192 16384 --prompts 4 --out build/divergence
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench_server import Client
from ruler_arms import count_tokens
from ruler_tasks import TASKS, make_prompt

ANSWER_TOKENS_MAX = 32


def answered(client: Client, seed: str, length: int, names: tuple[str, int]) -> str:
    """One line."""
    task, index = names
    prompt = make_prompt(seed, task, length, index, partial(count_tokens, client))
    ids = client.post("/tokenize", {"messages": [{"role": "user", "content": prompt.text}]}
                      if prompt.is_chat else {"prompt": prompt.text})["tokens"]
    response = client.post("/v1/completions", {
        "prompt": ids, "temperature": 0, "ignore_eos": True,
        "max_tokens": min(prompt.answer_tokens, ANSWER_TOKENS_MAX),
        "sparse_attention": {"mode": "dense"}})
    answer = client.post("/tokenize", {"prompt": response["choices"][0]["text"],
                                       "add_special_tokens": False})["tokens"]
    return json.dumps({"task": task, "ids": ids + answer, "answer": len(answer)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192])
    parser.add_argument("--prompts", type=int, default=4, help="per task and length")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    client = Client(arguments.server)
    names = [(task, index) for task in TASKS for index in range(arguments.prompts)]
    for length in arguments.lengths:
        with ThreadPoolExecutor(8) as threads:
            lines = list(threads.map(partial(answered, client, arguments.seed, length), names))
        (arguments.out / f"{length}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
