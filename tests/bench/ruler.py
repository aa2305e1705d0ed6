#!/usr/bin/env python3
"""What does each attention mode still find in a long prompt, and what does it cost?

Asks servers that run already, with any chat model. Every arm, which is a mode on a server, gets the
very same prompts in turn, each request under a cache salt of its own. The answers are appended to
--out as JSON lines. What is in it already is not asked again: a run that was stopped goes on when
it is repeated, and a mode can be added later. After a change of the server give it another name.

  ruler.py --mode dense --mode pbs --mode pbs:0.6
  ruler.py --server default=http://a:8000 --server paper=http://b:8000 \\
           --mode default/dense --mode pbs
"""

import argparse
import json
import platform
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench_server import commit_id
from ruler_arms import Arm, ask, connect, count_tokens, tokens_of
from ruler_results import Row, arm_of, key_of, load, tables
from ruler_tasks import TASKS, Prompt, agreement, make_prompt, score

ANSWER_CHARS_MAX = 300  # of what is written down


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", metavar="[NAME=]URL",
                        help="may be repeated; default: http://127.0.0.1:8000")
    parser.add_argument("--label", default="", help="the name of a server given without one")
    parser.add_argument("--api-key")
    parser.add_argument("--mode", action="append", metavar="[NAME/]MODE[:THRESHOLD]",
                        help="dense, pbs or auto, on every server or on NAME alone; may be"
                             " repeated: the first is what the others are compared with;"
                             " default: dense and pbs")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192],
                        help="tokens of prompt and answer together")
    parser.add_argument("--prompts", type=int, default=8, help="per task and length")
    parser.add_argument("--first", type=int, default=0, help="index of the first prompt")
    parser.add_argument("--seed", default="1", help="another one gives other prompts")
    parser.add_argument("--parallel", type=int, default=1,
                        help="prompts in flight; above 1 the times mean nothing")
    parser.add_argument("--out", type=Path, default=Path("ruler.jsonl"))
    parser.add_argument("--summary", action="store_true", help="only print the tables of --out")
    arguments = parser.parse_args(argv)
    arguments.server = arguments.server or ["http://127.0.0.1:8000"]
    arguments.mode = arguments.mode or ["dense", "pbs"]
    return arguments


class Run:
    """Asks what the results lack. Several threads work on it, each on a prompt of its own."""

    def __init__(self, arms: list[Arm], arguments: argparse.Namespace):
        self.arms, self.arguments = arms, arguments
        self.done = load(arguments.out)
        self.provenance = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                           "commit": commit_id(), "python": platform.python_version()}
        self.lock = threading.Lock()

    def answer(self, task: str, length: int, index: int) -> None:
        """One prompt, to every arm that has not answered it yet, the first arm first."""
        seed = self.arguments.seed
        names = {"seed": seed, "task": task, "length": length, "index": index}
        todo = [arm for arm in self.arms if key_of(arm.names() | names) not in self.done]
        if not todo:
            return
        prompt = make_prompt(seed, task, length, index, partial(count_tokens, todo[0].client))
        for arm in todo:
            row = self.provenance | arm.names() | names | self.measure(arm, prompt)
            if task == "agree":
                base = row if arm is self.arms[0] else self.done[
                    key_of(self.arms[0].names() | names)]
                row |= {"score": agreement(base["tokens"], row["tokens"]),
                        "against": arm_of(base)}
            self.record(row)

    def measure(self, arm: Arm, prompt: Prompt) -> Row:
        result = ask(arm, prompt)
        answer = result["answer"]
        judged = ({"score": score(prompt.expected, answer), "expected": " ".join(prompt.expected)}
                  if prompt.expected else {"tokens": tokens_of(arm.client, answer)})
        return judged | result | {
            "answer": answer[:ANSWER_CHARS_MAX], "digest": prompt.digest,
            "device": arm.info["device"], "settings": arm.info["sparse_attention"],
            "parallel": self.arguments.parallel,
        }

    def record(self, row: Row) -> None:
        with self.lock:
            self.done[key_of(row)] = row
            with self.arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['length']:7} {row['task']:7}{row['index']:3} {arm_of(row):16}"
                  f" score {row['score']:.2f} density {row['density']:.3f}"
                  f" prefill {row['prefill_ms']:.0f} ms", file=sys.stderr, flush=True)

    def all(self) -> None:
        """Index by index, so that a run that is stopped has something of every task."""
        first = self.arguments.first
        with ThreadPoolExecutor(self.arguments.parallel) as pool:
            jobs = [pool.submit(self.answer, task, length, index)
                    for index in range(first, first + self.arguments.prompts)
                    for length in self.arguments.lengths for task in self.arguments.tasks]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        if not arguments.summary:
            arms = connect(arguments.server, arguments.label, arguments.mode,
                           max(arguments.lengths), arguments.api_key)
            Run(arms, arguments).all()
        print(tables(load(arguments.out).values()))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"ruler.py: {error}")


if __name__ == "__main__":
    main()
