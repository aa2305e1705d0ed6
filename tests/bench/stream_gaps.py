"""How long short streams wait for their next token while a long prompt prefills beside them."""

import json
import threading
import time
import urllib.request
from contextlib import closing
from statistics import median, quantiles

from bench_server import BenchServer, random_ids

STREAM_PROMPT_TOKENS = 200
STREAM_TOKENS_MAX = 16384  # more than any long prompt takes


class ShortStream(threading.Thread):
    """A stream that decodes until stopped and remembers its gaps between two events."""

    def __init__(self, server: BenchServer, prompt: list[int], stop: threading.Event):
        super().__init__()
        body = {"prompt": prompt, "max_tokens": STREAM_TOKENS_MAX, "ignore_eos": True,
                "stream": True}
        self.request = urllib.request.Request(
            server.url + "/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        self.stop = stop
        self.gaps_ms: list[float] = []

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
                    self.gaps_ms.append(1000 * (now - before))
                before = now


def wait_for_gaps(streams: list[ShortStream], counts: list[int]) -> None:
    """Until each stream has so many gaps."""
    while any(len(stream.gaps_ms) < count for stream, count in zip(streams, counts)):
        if not all(stream.is_alive() for stream in streams):
            raise RuntimeError("a short stream ended before the long prompt did")
        time.sleep(0.01)


def gaps_beside(server: BenchServer, length: int, vocab_size: int, mode: str,
                num_streams: int) -> dict:
    """A long prompt beside short streams: every gap that overlaps its prefill counts."""
    stop = threading.Event()
    prompts = [random_ids(STREAM_PROMPT_TOKENS, vocab_size, f"stream {i}")
               for i in range(num_streams)]
    streams = [ShortStream(server, prompt, stop) for prompt in prompts]
    # Made before the streams run: it takes Python's lock for longer than a step.
    long_request = json.dumps({
        "prompt": random_ids(length, vocab_size, "beside"), "max_tokens": 1,
        "cache_salt": f"beside/{mode}", "sparse_attention": {"mode": mode},
        "include_metrics": True}).encode()
    try:
        for stream in streams:
            stream.start()
        wait_for_gaps(streams, [5] * num_streams)
        first = [len(stream.gaps_ms) for stream in streams]
        begin = time.monotonic()
        response = server.post("/v1/completions", long_request)
        seconds = time.monotonic() - begin
        last = [len(stream.gaps_ms) + 1 for stream in streams]
        wait_for_gaps(streams, last)
    finally:
        stop.set()
        for stream in streams:
            stream.join()
    gaps = [gap for stream, a, b in zip(streams, first, last) for gap in stream.gaps_ms[a:b]]
    return {"what": "beside streams", "tokens": length, "mode": mode, "streams": num_streams,
            "density": response["metrics"]["sparse_attention"]["density"], "prefill_s": seconds,
            "longest_gap_ms": max(gaps), "median_gap_ms": median(gaps),
            "p99_gap_ms": quantiles(gaps, n=100, method="inclusive")[98], "gaps": len(gaps)}
