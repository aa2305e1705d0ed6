#!/usr/bin/env python3
"""Many prompts at once: how long each waits for its first token.

  behind  a short prompt that arrives while a very long one prefills, against its time alone
  mixed   prompts of mixed lengths at random moments, against first-come first-served: the times
          that the same arrivals would have one after the other, each as long as it took alone

Prompts are random token ids (--force-density where PBS should leave out what it leaves out of
text). Each pass tells the same arrivals apart by --seed. Appends one JSON line per measurement.

  fairness.py --server-binary build/test/server/pbserve --model Llama-3.1-8B --dummy \\
      --behind 524288 8192 --set device.kind=cuda
"""

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean

from bench_server import ROOT, BenchServer, commit_id, random_ids

RESULTS = ROOT / "tests" / "bench" / "results" / "fairness.jsonl"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server-binary", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--dummy", action="store_true", help="random weights from config.json")
    parser.add_argument("--mode", choices=("dense", "pbs"), default="pbs")
    parser.add_argument("--force-density", type=float, metavar="SHARE")
    parser.add_argument("--behind", type=int, nargs=2, metavar=("LONG", "SHORT"))
    parser.add_argument("--moments", type=float, nargs="+", default=[1, 4, 8, 16, 24],
                        help="seconds into the long prompt at which a short one arrives")
    parser.add_argument("--mixed", type=int, default=0, metavar="PROMPTS")
    parser.add_argument("--lengths", type=int, nargs=2, default=[8192, 262144],
                        help="shortest and longest of --mixed, drawn evenly by their logarithm")
    parser.add_argument("--spread", type=float, default=0.5,
                        help="arrivals of --mixed lie within this part of their work")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--commit", help="where this is a copy without its repository")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


class Prompt(threading.Thread):
    """One request; `waited_s` until its first and only token."""

    def __init__(self, server: BenchServer, ids: list[int], mode: str):
        super().__init__()
        self.server, self.waited_s = server, None
        self.body = json.dumps({
            "prompt": ids, "max_tokens": 1, "ignore_eos": True, "temperature": 0,
            "cache_salt": str(random.random()), "sparse_attention": {"mode": mode}}).encode()

    def run(self) -> None:
        begin = time.monotonic()
        self.server.post("/v1/completions", self.body)
        self.waited_s = time.monotonic() - begin


def waits(prompts: list[Prompt], at_s: list[float]) -> list[float]:
    """Starts each prompt at its moment, and waits for all."""
    begin = time.monotonic()
    for prompt, moment in zip(prompts, at_s):
        time.sleep(max(0, begin + moment - time.monotonic()))
        prompt.start()
    for prompt in prompts:
        prompt.join()
    return [prompt.waited_s for prompt in prompts]


def behind(server: BenchServer, long: int, short: int, moments: list[float], mode: str,
           vocab_size: int) -> dict:
    def prompt(length: int, seed: str) -> Prompt:
        return Prompt(server, random_ids(length, vocab_size, seed), mode)

    for i in range(2):  # the first one warms up
        alone_s, = waits([prompt(short, f"alone {i}")], [0])
    long_prompt = prompt(long, "long")
    shorts = [prompt(short, f"behind {moment}") for moment in moments]
    begin = time.monotonic()
    long_prompt.start()
    behind_s = waits(shorts, moments)
    is_beside = long_prompt.is_alive()
    long_prompt.join()
    return {"what": "behind", "long": long, "short": short, "mode": mode, "moments_s": moments,
            "alone_s": alone_s, "behind_s": behind_s, "all_beside": is_beside,
            "times_alone": max(behind_s) / alone_s, "long_s": time.monotonic() - begin}


def mixed(server: BenchServer, count: int, lengths: list[int], spread: float, mode: str, seed: str,
          vocab_size: int) -> dict:
    source = random.Random(seed)
    shortest, longest = lengths
    sizes = [int(shortest * (longest / shortest) ** source.random()) for _ in range(count)]
    alone = {}
    for size in sorted(sizes):  # each alone; the shortest twice, since the first one warms up
        for i in range(1 if alone else 2):
            alone[size], = waits([Prompt(server, random_ids(size, vocab_size, f"{seed} {size} {i}"),
                                         mode)], [0])
    work_s = sum(alone[size] for size in sizes)
    at_s = sorted(source.uniform(0, spread * work_s) for _ in sizes)
    fcfs_s, free_s = [], 0.0
    for moment, size in zip(at_s, sizes):
        free_s = max(free_s, moment) + alone[size]
        fcfs_s.append(free_s - moment)
    prompts = [Prompt(server, random_ids(size, vocab_size, f"{seed} mixed {i}"), mode)
               for i, size in enumerate(sizes)]
    waited_s = waits(prompts, at_s)
    return {"what": "mixed", "mode": mode, "seed": seed, "tokens": sizes, "at_s": at_s,
            "alone_s": [alone[size] for size in sizes], "fcfs_s": fcfs_s, "waited_s": waited_s,
            "mean_ratio": mean(waited_s) / mean(fcfs_s),
            "longest_ratio": max(waited_s) / max(fcfs_s),
            "latest_ratio": max(waited / fcfs for waited, fcfs in zip(waited_s, fcfs_s)
                                if fcfs > 5)}


def main() -> None:
    args = parse_arguments()
    settings = dict(item.split("=", 1) for item in args.settings)
    if args.dummy:
        settings["model.load_format"] = "dummy"
    if args.force_density:
        settings["pbs.force_density"] = str(args.force_density)
    vocab_size = json.loads((args.model / "config.json").read_text())["vocab_size"]
    with (tempfile.TemporaryDirectory() as folder,
          BenchServer(args.server_binary, args.model, settings, Path(folder) / "log") as server,
          args.results.open("a") as results):
        facts = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                 "commit": args.commit or commit_id(), "machine": server.machine(),
                 "settings": settings}

        def keep(result: dict) -> None:
            results.write(json.dumps(facts | result) + "\n")
            print({key: value for key, value in result.items() if not isinstance(value, list)})

        if args.behind:
            keep(behind(server, *args.behind, args.moments, args.mode, vocab_size))
        if args.mixed:
            keep(mixed(server, args.mixed, args.lengths, args.spread, args.mode, args.seed,
                       vocab_size))


if __name__ == "__main__":
    main()
