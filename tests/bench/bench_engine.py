#!/usr/bin/env python3
"""What the whole server takes: time to the first token by prompt length, the gaps of short streams
while a long prompt prefills beside them, and decode rate by batch and context.

Prompts are random token ids and the weights may be (--dummy): then the times are those of the
shape, and the density that PBS reports is that of attention without structure, about 0.9. Appends
one JSON line per measurement to --results. Llama-3.1-8B's shape on a GPU, from a folder with its
config.json and tokenizer:

  bench_engine.py --model Llama-3.1-8B --dummy --tokens 8192 32768 131000 --batches 1 8 32 64 \\
      --contexts 1024 8192 32768 --set device.kind=cuda model.max_model_len=131072
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from bench_server import ROOT, BenchServer, commit_id, random_ids
from decode_rate import decode_rate
from second_turn import second_turn
from stream_gaps import gaps_beside

NUM_OUTPUT_TOKENS = 64
MODES = ("dense", "pbs")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    release = ROOT / "build" / "release" / "server" / "pbserve"
    parser.add_argument("--server-binary", type=Path, default=release)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--dummy", action="store_true", help="random weights from config.json")
    parser.add_argument("--tokens", type=int, nargs="*", default=[8192, 30000],
                        help="of prompts; the last one runs beside the streams too")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--turns", nargs="*", default=[], metavar="TOKENS+NEW",
                        help="second turns of a conversation: new tokens on those before")
    parser.add_argument("--repeat-turns", type=int, default=3)
    parser.add_argument("--evict", type=int, default=0, metavar="TOKENS",
                        help="another prompt of so many runs between two turns")
    parser.add_argument("--streams", type=int, default=16, help="beside the long prompt; 0 = none")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--contexts", type=int, nargs="*", default=[1024, 8192])
    parser.add_argument("--force-density", type=float, metavar="SHARE",
                        help="draw the blocks that PBS attends; all its planning is still done")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--commit", help="where this is a copy without its repository")
    parser.add_argument("--results", type=Path,
                        default=ROOT / "tests" / "bench" / "results" / "engine.jsonl")
    return parser.parse_args()


def first_token(server: BenchServer, length: int, vocab_size: int, mode: str,
                salt: str = "") -> dict:
    """One request on an idle server."""
    response = server.post("/v1/completions", {
        "prompt": random_ids(length, vocab_size, f"prompt {length}"), "temperature": 0,
        "max_tokens": NUM_OUTPUT_TOKENS, "ignore_eos": True,
        "cache_salt": f"{mode}/{length}/{salt}", "sparse_attention": {"mode": mode},
        "include_metrics": True,
    })
    metrics = response["metrics"]
    return {"what": "first token", "tokens": length, "mode": mode,
            "density": metrics["sparse_attention"]["density"],
            "forced": metrics["sparse_attention"]["forced"],
            "ttft_ms": metrics["time_to_first_token_ms"], "itl_ms": metrics["mean_itl_ms"]}


def text_ids(server: BenchServer, length: int, vocab_size: int, is_dummy: bool) -> list[int]:
    """Natural text, in which PBS finds structure; random weights find none in anything."""
    if is_dummy:
        return random_ids(length, vocab_size, f"turns {length}")
    text = (ROOT / "tests" / "bench" / "haystack" / "postgresql-15.txt").read_text("utf-8")
    ids: list[int] = []
    for begin in range(0, len(text), 50_000):
        ids += server.post("/tokenize", {"prompt": text[begin:begin + 50_000]})["tokens"]
        if len(ids) >= length:
            return ids[:length]
    raise SystemExit(f"--turns: the haystack has {len(ids)} tokens, {length} are needed")


def measure(server: BenchServer, arguments: argparse.Namespace, vocab_size: int):
    """Yields one result after the other."""
    for mode in arguments.modes:  # what is loaded at first use
        first_token(server, 4096, vocab_size, mode, "warm-up")
    for length in arguments.tokens:
        for mode in arguments.modes:
            yield first_token(server, length, vocab_size, mode)
    if arguments.tokens and arguments.streams > 0:
        for mode in arguments.modes:
            yield gaps_beside(server, arguments.tokens[-1], vocab_size, mode, arguments.streams)
    for turns in arguments.turns:
        num_before, num_new = map(int, turns.split("+"))
        ids = text_ids(server, num_before + num_new, vocab_size, arguments.dummy)
        between = random_ids(arguments.evict, vocab_size, f"evict {turns}")
        for attempt in range(arguments.repeat_turns):
            for mode in arguments.modes:
                yield second_turn(server, ids, num_new, mode, f"{turns}/{mode}/{attempt}", between)
    for context in arguments.contexts:
        for batch in arguments.batches:
            yield decode_rate(server, batch, context, vocab_size)


def main() -> None:
    arguments = parse_arguments()
    settings = dict(setting.split("=", 1) for setting in arguments.settings)
    if arguments.dummy:
        settings["model.load_format"] = "dummy"
    if arguments.force_density:
        settings["pbs.force_density"] = str(arguments.force_density)
    vocab_size = json.loads((arguments.model / "config.json").read_text())["vocab_size"]
    started = time.monotonic()
    with (arguments.results.open("a", encoding="utf-8") as file,
          tempfile.TemporaryDirectory() as scratch,
          BenchServer(arguments.server_binary, arguments.model, settings,
                      Path(scratch) / "log") as server):
        provenance = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                      "machine": server.machine(),
                      "commit": arguments.commit or commit_id(), "settings": settings,
                      "model": arguments.model.name, "dummy": arguments.dummy}

        def record(result: dict) -> None:
            file.write(json.dumps(provenance | result) + "\n")
            file.flush()
            print(json.dumps(result), flush=True)

        record({"what": "ready", "seconds": time.monotonic() - started})
        for result in measure(server, arguments, vocab_size):
            record(result)


if __name__ == "__main__":
    main()
