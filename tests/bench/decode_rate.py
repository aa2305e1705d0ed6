"""Tokens a second by batch and context, from the server's own count of them.

Prompts are prefilled beforehand and one by one; the batch then starts from the prefix cache, all
its sequences within some steps. Each has a prompt of its own, so that no two read the same pages:
shared pages would come from the GPU's L2 cache and flatter the rate. Where the KV cache holds fewer
prompts than the batch has sequences, they share evenly, and the result says how many there were.
"""

import http.client
import json
import time
import urllib.parse
from contextlib import ExitStack, closing
from statistics import median

from bench_server import BenchServer, random_ids

OUTPUT_TOKENS_MAX = 16384  # of a sequence; the measurement ends before
OUTPUT_TOKENS_KEPT = 1024  # room in the cache for what a sequence of a large model gets to
NUM_WINDOWS = 5
WINDOW_S = 0.6


def open_request(server: BenchServer, body: dict) -> http.client.HTTPConnection:
    """A request whose answer nobody waits for: closing the connection cancels it."""
    connection = http.client.HTTPConnection(urllib.parse.urlparse(server.url).netloc, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"Content-Type": "application/json"})
    return connection


def wait_until(condition, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain for {timeout_s} s")
        time.sleep(0.002)


def next_count(server: BenchServer) -> tuple[float, float]:
    """(time, tokens generated) just after the count went up, which is the end of a step."""
    before = count = server.metric("generation_tokens_total")
    deadline = time.monotonic() + 60
    while count == before:
        if time.monotonic() > deadline:
            raise RuntimeError("no token in 60 s: the sequences have ended")
        time.sleep(0.001)
        count = server.metric("generation_tokens_total")
    return time.monotonic(), count


def window_rate(server: BenchServer) -> float:
    begin, first = next_count(server)
    time.sleep(WINDOW_S)
    end, last = next_count(server)
    return (last - first) / (end - begin)


def decode_rate(server: BenchServer, batch: int, context: int, vocab_size: int) -> dict:
    """`context` is the length at the start: it grows by what is decoded meanwhile."""
    info = server.get("/server_info")
    capacity = info["num_pages"] * info["page_size"]
    num_prompts = min(batch, (capacity - batch * OUTPUT_TOKENS_KEPT) // context)
    if num_prompts < 1:
        raise RuntimeError(f"a KV cache of {capacity} tokens is too small for a batch of {batch}")
    common = {"temperature": 0, "ignore_eos": True, "cache_salt": "decode",
              "sparse_attention": {"mode": "dense"},
              "max_tokens": min(OUTPUT_TOKENS_MAX, info["max_model_len"] - context)}
    bodies = [common | {"prompt": random_ids(context, vocab_size, f"decode {context} {i}")}
              for i in range(num_prompts)]
    for body in bodies:
        server.post("/v1/completions", body | {"max_tokens": 1})
    first_tokens = server.metric("time_to_first_token_seconds_count") + batch
    num_preempted = server.metric("num_preemptions_total")
    with ExitStack() as stack:
        for i in range(batch):
            stack.enter_context(closing(open_request(server, bodies[i % num_prompts])))
        wait_until(lambda: server.metric("time_to_first_token_seconds_count") >= first_tokens)
        rates = [window_rate(server) for _ in range(NUM_WINDOWS)]
        load = server.get("/load")
        if load["num_running"] != batch or server.metric("num_preemptions_total") > num_preempted:
            raise RuntimeError(f"not every sequence decoded all the time: {load}")
    wait_until(lambda: server.get("/load")["num_running"] == 0)
    rate = median(rates)
    return {"what": "decode rate", "batch": batch, "context": context, "prompts": num_prompts,
            "tokens_per_s": rate, "tokens_per_s_min": min(rates), "tokens_per_s_max": max(rates),
            "step_ms": 1000 * batch / rate}
