#!/usr/bin/env python3
"""What the whole server takes: time to the first token by prompt length, decode rate after it, and
the longest gap of short streams while a long prompt prefills beside them.

Prompts are random token ids and the weights may be (--dummy): then the times are those of the
shape, and the density that PBS reports is that of attention without structure, about 0.9. Appends
one JSON line per measurement to --results.
"""

import argparse
import json
import random
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from bench_server import ROOT, BenchServer, commit_id, machine_name

NUM_OUTPUT_TOKENS = 64


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    release = ROOT / "build" / "release" / "server" / "pbserve"
    parser.add_argument("--server-binary", type=Path, default=release)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--dummy", action="store_true", help="random weights from config.json")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 30000])
    parser.add_argument("--streams", type=int, default=16, help="beside the longest prompt")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--machine", default=machine_name(), help="as the results shall name it")
    parser.add_argument("--results", type=Path,
                        default=ROOT / "tests" / "bench" / "results" / "engine.jsonl")
    return parser.parse_args()


def random_ids(count: int, vocab_size: int, seed: str) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(1, vocab_size) for _ in range(count)]


def first_token(server: BenchServer, length: int, vocab_size: int, mode: str) -> dict:
    """One request on an idle server."""
    response = server.post("/v1/completions", {
        "prompt": random_ids(length, vocab_size, f"prompt {length}"), "temperature": 0,
        "max_tokens": NUM_OUTPUT_TOKENS, "ignore_eos": True, "cache_salt": f"{mode}/{length}",
        "sparse_attention": {"mode": mode}, "include_metrics": True,
    })
    metrics = response["metrics"]
    return {"what": "first token", "tokens": length, "mode": mode,
            "density": metrics["sparse_attention"]["density"],
            "ttft_ms": metrics["time_to_first_token_ms"], "itl_ms": metrics["mean_itl_ms"]}


class ShortStream(threading.Thread):
    """A stream that decodes until stopped and remembers its longest gap between two events."""

    def __init__(self, server: BenchServer, prompt: list[int], stop: threading.Event):
        super().__init__()
        body = {"prompt": prompt, "max_tokens": 16384, "ignore_eos": True, "stream": True}
        self.request = urllib.request.Request(
            server.url + "/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        self.stop = stop
        self.num_events = 0
        self.longest_gap_ms = 0.0

    def run(self) -> None:
        with closing(urllib.request.urlopen(self.request, timeout=600)) as response:
            before = None
            for line in response:
                if self.stop.is_set():
                    return
                if not line.startswith(b"data: {"):
                    continue
                now = time.monotonic()
                if before is not None:
                    self.longest_gap_ms = max(self.longest_gap_ms, 1000 * (now - before))
                before = now
                self.num_events += 1


def gap_beside(server: BenchServer, length: int, vocab_size: int, num_streams: int) -> dict:
    """A dense prefill beside short streams."""
    stop = threading.Event()
    streams = [ShortStream(server, random_ids(200, vocab_size, f"stream {i}"), stop)
               for i in range(num_streams)]
    for stream in streams:
        stream.start()
    while any(stream.num_events < 5 for stream in streams):
        if not all(stream.is_alive() for stream in streams):
            raise RuntimeError("a short stream ended before the long prompt began")
        time.sleep(0.05)
    for stream in streams:
        stream.longest_gap_ms = 0.0
    begin = time.monotonic()
    server.post("/v1/completions", {
        "prompt": random_ids(length, vocab_size, "beside"), "max_tokens": 1,
        "sparse_attention": {"mode": "dense"}})
    seconds = time.monotonic() - begin
    stop.set()
    for stream in streams:
        stream.join()
    return {"what": "beside streams", "tokens": length, "mode": "dense", "streams": num_streams,
            "prefill_s": seconds, "longest_gap_ms": max(s.longest_gap_ms for s in streams)}


def main() -> None:
    arguments = parse_arguments()
    settings = dict(setting.split("=", 1) for setting in arguments.settings)
    if arguments.dummy:
        settings["model.load_format"] = "dummy"
    vocab_size = json.loads((arguments.model / "config.json").read_text())["vocab_size"]
    provenance = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                  "machine": arguments.machine, "commit": commit_id(), "settings": settings,
                  "model": arguments.model.name, "dummy": arguments.dummy}
    with (arguments.results.open("a", encoding="utf-8") as file,
          tempfile.TemporaryDirectory() as scratch,
          BenchServer(arguments.server_binary, arguments.model, settings,
                      Path(scratch) / "log") as server):

        def record(result: dict) -> None:
            file.write(json.dumps(provenance | result) + "\n")
            print(json.dumps(result), flush=True)

        first_token(server, 1024, vocab_size, "dense")  # loads what is loaded at first use
        for length in arguments.tokens:
            for mode in ("dense", "pbs"):
                record(first_token(server, length, vocab_size, mode))
        if arguments.streams > 0:
            record(gap_beside(server, arguments.tokens[-1], vocab_size, arguments.streams))


if __name__ == "__main__":
    main()
