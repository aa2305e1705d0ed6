#!/usr/bin/env python3
"""Are the logits of pbserve those of `transformers`?

usage: parity.py --program build/cuda/tests/parity/dump_logits [--device cuda] [--results FILE]
(needs torch, transformers and a GPU; --device cpu --tokens 256 --reduced does without the GPU)

Cases are the demo model on documentation text, and models with random weights in the shapes of
published ones on random tokens. The truth is `transformers` in float32 on the same bfloat16
weights. Measured against it are pbserve in bfloat16, its last rows computed by decode and all
others by prefill, and as a yardstick `transformers` in bfloat16. Exits with 1 if a case misses its
limit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from cases import CASES, Case, demo_ids, random_ids, write_random_model
from compare import METRICS, Comparison, check_comparison, compare
from packaging.version import Version
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

DECODE_ROWS = 64
# transformers 4.56 renamed the argument.
DTYPE = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", type=Path, required=True, help="the built dump_logits")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--tokens", type=int, help="instead of each case's own number")
    parser.add_argument("--reduced", action="store_true",
                        help="random models with narrow layers and a small vocabulary")
    parser.add_argument("--slice", type=int, default=512, help="rows of a prefill pass of pbserve")
    parser.add_argument("--results", type=Path, help="file to append a JSON line per case to")
    parser.add_argument("--commit", default="unknown", help="of the program, for the results")
    return parser.parse_args()


def reference_logits(folder: Path, ids: torch.Tensor, device: str) -> tuple:
    """Logits [T, V] of `transformers` on the device: in float32, and in bfloat16."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="sdpa", **{DTYPE: torch.bfloat16}).to(device).eval()

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return model(ids[None].long().to(device), use_cache=False).logits[0]

    same_type = logits()
    model.float()
    # Attention as it is defined: fused kernels may shorten the mantissas of float32.
    with sdpa_kernel(SDPBackend.MATH):
        return logits(), same_type


def pbserve_logits(arguments: argparse.Namespace, folder: Path, ids: torch.Tensor,
                   scratch: Path) -> torch.Tensor:
    """Logits [T, V] in host memory."""
    ids_file, logits_file = scratch / "ids", scratch / "logits"
    ids.int().numpy().tofile(ids_file)
    subprocess.run(
        [arguments.program, "--model", folder, "--ids", ids_file, "--out", logits_file,
         "--device", arguments.device, "--dtype", "bfloat16", "--slice", str(arguments.slice),
         "--decode-from", str(len(ids) - DECODE_ROWS)], check=True)
    num_values = logits_file.stat().st_size // 4
    logits = torch.from_file(str(logits_file), size=num_values, dtype=torch.float32)
    return logits.view(len(ids), -1)


def run_case(case: Case, arguments: argparse.Namespace, scratch: Path) -> dict[str, Comparison]:
    """How far pbserve's prefilled rows, its decoded rows and `transformers` in bfloat16 are."""
    num_tokens = arguments.tokens or case.num_tokens
    if num_tokens <= DECODE_ROWS:
        sys.exit(f"--tokens: more than the {DECODE_ROWS} decoded rows")
    if case.config is None:
        folder, ids = case.folder, demo_ids(num_tokens)
    else:
        folder = scratch / "model"
        config = write_random_model(case, folder, arguments.device, reduced=arguments.reduced)
        ids = random_ids(num_tokens, config.vocab_size)
    truth, same_type = reference_logits(folder, ids, arguments.device)
    ours = pbserve_logits(arguments, folder, ids, scratch)
    prefill, decode = slice(0, num_tokens - DECODE_ROWS), slice(num_tokens - DECODE_ROWS, None)
    return {
        "pbserve prefill": compare(truth[prefill], ours[prefill]),
        "pbserve decode": compare(truth[decode], ours[decode]),
        "transformers bf16": compare(truth, same_type),
    }


def describe_machine(device: str) -> dict:
    gpu = torch.cuda.get_device_name() if device == "cuda" else "none"
    return {"gpu": gpu, "cuda": torch.version.cuda, "torch": torch.__version__,
            "transformers": transformers.__version__}


def main() -> None:
    arguments = parse_arguments()
    check_comparison()
    torch.set_float32_matmul_precision("highest")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"{'case':14} {'rows of':18}" + "".join(f"{name:>13}" for name in METRICS))
    misses = 0
    for name in arguments.cases:
        case, start = CASES[name], time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            results = run_case(case, arguments, Path(scratch))
        ours = [results["pbserve prefill"], results["pbserve decode"]]
        passed = all(case.limit.holds(result) for result in ours)
        misses += not passed
        for what, result in results.items():
            print(f"{name:14} {what:18}" + "".join(f"{result[key]:13.6g}" for key in METRICS))
        seconds = round(time.monotonic() - start, 1)
        print(f"{name:14} {'pass' if passed else 'FAIL'}: {case.limit}, {seconds} s", flush=True)
        if arguments.results:
            line = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "commit": arguments.commit} | describe_machine(arguments.device)
            line |= {"case": name, "reduced": arguments.reduced and case.config is not None,
                     "tokens": arguments.tokens or case.num_tokens, "decoded": DECODE_ROWS,
                     "limit": str(case.limit), "pass": passed, "seconds": seconds} | results
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    main()
