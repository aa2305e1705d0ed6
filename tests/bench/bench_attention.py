#!/usr/bin/env python3
"""Prefill attention beside PyTorch's cuDNN attention, in one run on one GPU.

For each length: cuDNN, then bench_ops (dense, and PBS at a forced density), then cuDNN again, so
that a clock that drifts shows. One layer of Llama-3.1-8B's shape in bfloat16, random inputs,
causal; the L2 cache is flushed before every run. cuDNN reads contiguous [1, heads, length, dim]
tensors, with the GQA heads where it takes them, else with K and V repeated for every query head:
"kv_heads" says which. Both are counted with the same FLOP, those of the causal half.

Appends one JSON line per measurement to --results and prints a table. Needs a GPU, and PyTorch
built for CUDA:

  bench_attention.py --bench-ops build/release/tests/bench/bench_ops --tokens 8192 32768 131072
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench_server import ROOT, commit_id

NUM_Q_HEADS = 32
NUM_KV_HEADS = 8
HEAD_DIM = 128
PLANNING = ["pbs_order", "pbs_select_mass", "pbs_audit"]  # what the defaults add to attention
FLUSH_BYTES = 256 << 20
NUM_RUNS = 20  # as far as the budget allows
NUM_RUNS_MIN = 10
BUDGET_MS = 2000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench-ops", type=Path,
                        default=ROOT / "build" / "release" / "tests" / "bench" / "bench_ops")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768, 131072])
    parser.add_argument("--density", type=float, default=0.2, help="of PBS; forced")
    parser.add_argument("--span", type=int, default=1024, help="of PBS; 0 = the whole prompt")
    parser.add_argument("--commit", help="where this is a copy without its repository")
    parser.add_argument("--results", type=Path,
                        default=ROOT / "tests" / "bench" / "results" / "attention.jsonl")
    return parser.parse_args()


def tflops(tokens: int, ms: float) -> float:
    return 4 * NUM_Q_HEADS * HEAD_DIM * tokens * (tokens + 1) / 2 / ms * 1e-9


def take_inputs(tokens: int, num_kv_heads: int) -> list[torch.Tensor]:
    """q, k, v; K and V of query heads that share them are repeated if num_kv_heads says so."""
    shapes = [(1, heads, tokens, HEAD_DIM) for heads in (NUM_Q_HEADS, NUM_KV_HEADS, NUM_KV_HEADS)]
    q, k, v = (torch.randn(shape, dtype=torch.bfloat16, device="cuda") for shape in shapes)
    repeats = num_kv_heads // NUM_KV_HEADS
    return [q, k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)]


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True,
                                        enable_gqa=q.size(1) != k.size(1))


def cudnn_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """RuntimeError where cuDNN refuses."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return attention(q, k, v)


def kv_heads_of_cudnn() -> int:
    """How many KV heads cuDNN is to be given. Its result is checked against a float32 one."""
    heads = NUM_KV_HEADS
    q, k, v = take_inputs(256, heads)
    try:
        result = cudnn_attention(q, k, v)
    except RuntimeError as error:
        print(f"cuDNN takes no GQA here, K and V are repeated: {error}")
        heads = NUM_Q_HEADS
        k, v = (x.repeat_interleave(NUM_Q_HEADS // NUM_KV_HEADS, dim=1) for x in (k, v))
        result = cudnn_attention(q, k, v)
    with sdpa_kernel(SDPBackend.MATH):
        expected = attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(result.float(), expected, atol=2e-2, rtol=2e-2)
    return heads


def run_ms(flush: torch.Tensor, inputs: list[torch.Tensor]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(4):  # longer than Python takes to enqueue the work, which is not to be timed
        flush.zero_()
    begin.record()
    attention(*inputs)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def measure_cudnn(tokens: int, num_kv_heads: int, when: str) -> dict:
    """Leaves no memory of the GPU taken."""
    inputs = take_inputs(tokens, num_kv_heads)
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    times: list[float] = []
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        for _ in range(3):  # warms up
            run_ms(flush, inputs)
        while len(times) < NUM_RUNS and (len(times) < NUM_RUNS_MIN or sum(times) < BUDGET_MS):
            times.append(run_ms(flush, inputs))
    del inputs, flush
    torch.cuda.empty_cache()
    return {"op": "cudnn_attention", "when": when, "tokens": tokens, "kv_heads": num_kv_heads,
            "ms": round(median(times), 4), "ms_min": round(min(times), 4),
            "ms_max": round(max(times), 4), "runs": len(times),
            "tflops": round(tflops(tokens, median(times)), 1)}


def measure_pbserve(arguments: argparse.Namespace, tokens: int, commit: str) -> list[dict]:
    command = [arguments.bench_ops, "--device", "cuda", "--ops", "prefill,pbs", "--tokens", tokens,
               "--densities", arguments.density, "--span", arguments.span, "--commit", commit,
               "--q-heads", NUM_Q_HEADS, "--kv-heads", NUM_KV_HEADS, "--head-dim", HEAD_DIM]
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def table_row(tokens: int, before: dict, ops: list[dict], after: dict) -> str:
    medians = {op["op"]: op["ms"] for op in ops}
    dense, sparse = medians["prefill_attention"], medians["pbs_prefill"]
    planned = sparse + sum(medians[op] for op in PLANNING)
    cells = [str(tokens)]
    cells += [f"{x['ms']:.3f} ms, {x['tflops']:.0f}" for x in (before, after)]
    cells += [f"{dense:.3f} ms, {tflops(tokens, dense):.0f}",
              f"{min(before['ms'], after['ms']) / dense:.3f}"]
    cells += [f"{ms:.3f} ms, {dense / ms:.2f}x" for ms in (sparse, planned)]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        raise SystemExit("bench_attention.py needs a GPU, and PyTorch built for CUDA")
    commit = arguments.commit or commit_id()
    torch.manual_seed(1)
    num_kv_heads = kv_heads_of_cudnn()
    versions = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    rows = []
    with arguments.results.open("a", encoding="utf-8") as file:

        def record(results: list[dict]) -> None:
            date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            own = {"date": date, "machine": torch.cuda.get_device_name(), "commit": commit}
            for result in results:  # a line of bench_ops has its own date and machine
                line = {key: result.get(key, own[key]) for key in own} | versions | result
                file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
            file.flush()

        for tokens in arguments.tokens:
            before = measure_cudnn(tokens, num_kv_heads, "before")
            record([before])
            ops = measure_pbserve(arguments, tokens, commit)
            record(ops)
            after = measure_cudnn(tokens, num_kv_heads, "after")
            record([after])
            rows.append(table_row(tokens, before, ops, after))
    density = f"{100 * arguments.density:g} %"
    print(f"\nTFLOP/s beside the times; ratio = faster cuDNN / dense; {num_kv_heads} KV heads in "
          f"cuDNN, {NUM_KV_HEADS} in pbserve\n\n"
          f"| tokens | cuDNN before | cuDNN after | dense | ratio | PBS {density}, over dense "
          "| with order, select and audit |")
    print("|---" * 7 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
