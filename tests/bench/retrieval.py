#!/usr/bin/env python3
"""Does PBS prefill still find what dense prefill finds, and what does it save?

Starts a server with the demo model for each preset and sends retrieval prompts at several
lengths with dense and with PBS prefill: the same prompts to every arm, each under a cache salt of
its own, so that no arm reads pages another one left. Prints hits, densities and prefill times and
appends one JSON line per prompt and arm to tests/bench/results/retrieval.jsonl.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from bench_server import ROOT, BenchServer, commit_id
from retrieval_prompts import ANSWER_TOKENS, TASKS, Prompt, is_hit, make_prompt, read_words


@dataclass(frozen=True)
class Arm:
    """One way to prefill. The preset is a setting of the server: arms of one preset share one."""

    name: str
    preset: str
    sparse_attention: dict


ARMS = [
    Arm("dense", "default", {"mode": "dense"}),
    Arm("pbs", "default", {"mode": "pbs"}),
    Arm("pbs paper", "paper", {"mode": "pbs"}),
]
SETTINGS = {"device.gpu_memory_utilization": "0.4"}  # on a GPU both are there at a time


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    release = ROOT / "build" / "release" / "server" / "pbserve"
    parser.add_argument("--server-binary", type=Path, default=release)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 16384, 32768],
                        help="tokens of prompt and answer together")
    parser.add_argument("--prompts", type=int, default=12, help="per task and length")
    parser.add_argument("--first", type=int, default=0,
                        help="index of the first prompt, to go on where another run stopped")
    parser.add_argument("--quick", action="store_true", help="4 prompts of 8192 tokens")
    parser.add_argument("--results", type=Path,
                        default=ROOT / "tests" / "bench" / "results" / "retrieval.jsonl")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.lengths, arguments.prompts = [8192], 4
    return arguments


def make_prompts(server: BenchServer, arguments: argparse.Namespace) -> list[tuple[int, Prompt]]:
    words = read_words()
    return [
        (length, make_prompt(task, length, index, words, server.count_tokens))
        for index in range(arguments.first, arguments.first + arguments.prompts)
        for length in arguments.lengths
        for task in TASKS
    ]


def ask(server: BenchServer, arm: Arm, length: int, prompt: Prompt, salt: str) -> dict:
    """One prompt to one arm: what it answered, how dense its attention was, how long it took."""
    response = server.post("/v1/completions", {
        "prompt": prompt.text, "max_tokens": ANSWER_TOKENS, "temperature": 0, "cache_salt": salt,
        "sparse_attention": arm.sparse_attention, "include_metrics": True,
    })
    answer = response["choices"][0]["text"]
    usage, metrics = response["usage"], response["metrics"]
    if usage["prompt_tokens"] != prompt.num_tokens:
        raise RuntimeError(f"{usage['prompt_tokens']} prompt tokens, expected {prompt.num_tokens}")
    if usage["prompt_tokens_details"]["cached_tokens"] != 0:
        raise RuntimeError("the prompt came from the prefix cache: its time means nothing")
    return {
        "task": prompt.task, "length": length, "arm": arm.name,
        "prompt_tokens": prompt.num_tokens, "hit": is_hit(prompt, answer),
        "density": metrics["sparse_attention"]["density"],
        "prefill_s": metrics["prefill_time_ms"] / 1000,
        "expected": " ".join(prompt.expected), "answer": answer,
    }


def run(arguments: argparse.Namespace, scratch: Path, record) -> list[dict]:
    """The arms take turns prompt by prompt, so that a slow minute of the machine hits all alike."""
    results: list[dict] = []
    with ExitStack() as stack:
        servers: dict[str, BenchServer] = {}
        for preset in dict.fromkeys(arm.preset for arm in ARMS):
            servers[preset] = stack.enter_context(BenchServer(
                arguments.server_binary, arguments.model, {"pbs.preset": preset} | SETTINGS,
                scratch / f"{preset}.log"))
        first = servers[ARMS[0].preset]
        machine = {"machine": first.machine()}
        prompts = make_prompts(first, arguments)
        for number, (length, prompt) in enumerate(prompts):
            for arm in ARMS:
                result = machine | ask(servers[arm.preset], arm, length, prompt,
                                       f"{arm.name}/{number}")
                results.append(result)
                record(result)
    return results


def print_table(results: list[dict], arguments: argparse.Namespace) -> None:
    """Hits by task and length, then what the arms cost, in Markdown."""
    def chosen(**wanted) -> list[dict]:
        return [r for r in results if all(r[key] == value for key, value in wanted.items())]

    names = [arm.name for arm in ARMS]
    print(f"\nhits of {arguments.prompts}\n\n| task | tokens | {' | '.join(names)} |")
    print("|---|---|" + "---|" * len(names))
    for task in TASKS:
        for length in arguments.lengths:
            hits = [sum(r["hit"] for r in chosen(task=task, length=length, arm=name))
                    for name in names]
            print(f"| {task} | {length} | {' | '.join(map(str, hits))} |")
    totals = [sum(r["hit"] for r in chosen(arm=name)) for name in names]
    print(f"| sum | | {' | '.join(map(str, totals))} |")

    print("\n| arm | tokens | density, mean | prefill, median | dense / arm |")
    print("|---|---|---|---|---|")
    for length in arguments.lengths:
        dense_s = median(r["prefill_s"] for r in chosen(length=length, arm="dense"))
        for name in names:
            rows = chosen(length=length, arm=name)
            prefill_s = median(r["prefill_s"] for r in rows)
            print(f"| {name} | {length} | {mean(r['density'] for r in rows):.3f}"
                  f" | {prefill_s:.2f} s | {dense_s / prefill_s:.2f} |")


def main() -> None:
    arguments = parse_arguments()
    if not os.access(arguments.server_binary, os.X_OK):
        sys.exit(f"{arguments.server_binary} is missing: build it, or name it with --server-binary")
    provenance = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit_id(),
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with (arguments.results.open("a", encoding="utf-8") as file,
          tempfile.TemporaryDirectory() as scratch):

        def record(result: dict) -> None:
            file.write(json.dumps(provenance | result) + "\n")
            file.flush()
            print(f"{result['length']:6} {result['task']:18} {result['arm']:17}"
                  f" {'hit ' if result['hit'] else 'miss'} density {result['density']:.3f}"
                  f" prefill {result['prefill_s']:.2f} s", file=sys.stderr, flush=True)

        results = run(arguments, Path(scratch), record)
    print_table(results, arguments)


if __name__ == "__main__":
    main()
