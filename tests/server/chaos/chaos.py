#!/usr/bin/env python3
"""Many clients at once, most of them badly behaved, for a long time, against one server.

  PBSERVE_BINARY=build/test/server/pbserve tests/server/chaos/chaos.py --minutes 60

Fails if an answer is wrong, a request is lost or answered twice, the server dies, pages,
descriptors or threads do not return to what they were, or memory grows in the second half.
"""

import argparse
import collections
import os
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import actors  # noqa: E402
from server_process import Server  # noqa: E402

GROWTH_MAX = 0.02  # of resident memory, over the second half
SAMPLE_S = 2


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ignore-memory", action="store_true",
                        help="a sanitizer's allocator keeps what was freed")
    return parser.parse_args()


class Watch(threading.Thread):
    """Samples what the process holds."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.memory, self.over = pid, [], threading.Event()

    def held(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return {"descriptors": len(os.listdir(f"/proc/{self.pid}/fd")),
                "threads": int(re.search(r"^Threads:\s+(\d+)", status, re.M)[1]),
                "memory": 1024 * int(re.search(r"^VmRSS:\s+(\d+)", status, re.M)[1])}

    def run(self):
        while not self.over.wait(SAMPLE_S):
            self.memory.append(self.held()["memory"])

    def growth(self):
        """Of the second half: the median of its last third over that of its first."""
        half = self.memory[len(self.memory) // 2:]
        third = max(1, len(half) // 3)
        return median(half[-third:]) / median(half[:third]) - 1


def act(server, seed, ledger, deadline, failures):
    rng = random.Random(seed)
    kinds, weights = list(actors.ACTORS), list(actors.ACTORS.values())
    while time.monotonic() < deadline and not failures:
        actor = rng.choices(kinds, weights)[0]
        try:
            actor(server, rng, ledger)
        except Exception as error:  # told at the end, by the main thread
            failures.append(f"{actor.__name__}: {error!r}")


def check_log(log, ids, failures):
    lines = collections.Counter(re.findall(r"id=\"?(chaos-[0-9a-f]+)", log))
    lost = [name for name in ids if lines[name] == 0]
    twice = [name for name in ids if lines[name] > 1]
    if lost or twice:
        failures.append(f"{len(lost)} of {len(ids)} requests have no line in the log,"
                        f" {len(twice)} several: {(lost + twice)[:3]}")


def check_returned(watch, before, failures, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while True:
        after = watch.held()
        grown = {name: (before[name], after[name]) for name in ("descriptors", "threads")
                 if after[name] > before[name]}
        if not grown:
            return
        if time.monotonic() > deadline:
            failures.append(f"held still (before, after): {grown}")
            return
        time.sleep(1)


def run(server, arguments, failures):
    ledger = actors.Ledger()
    for _ in range(3):  # what starts at first use is there
        actors.complete(server, random.Random(0), ledger)
    watch = Watch(server.process.pid)
    before = watch.held()
    watch.start()
    deadline = time.monotonic() + 60 * arguments.minutes
    clients = [threading.Thread(target=act, args=(server, f"{arguments.seed}/{i}", ledger, deadline,
                                                  failures)) for i in range(arguments.clients)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    watch.over.set()
    growth = watch.growth()
    server.wait_until_idle(headers=actors.HEADERS)
    check_returned(watch, before, failures)
    if growth > GROWTH_MAX and not arguments.ignore_memory:
        failures.append(f"memory grew by {growth:.1%} in the second half")
    print(f"{len(ledger.ids)} requests with an id; {ledger.counts}; memory {growth:+.2%}")
    return ledger.ids


def main():
    arguments = parse_arguments()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        key_file = Path(folder) / "keys"
        key_file.write_text(actors.KEY + "\n")
        # A small cache is all touched soon: from then on memory may not grow.
        with Server("--api-key-file", str(key_file), "--max-num-queued-reqs", "32",
                    "--kv-cache-memory-bytes", "64M", "--max-model-len", "8192",
                    "--set", "http.header_timeout_s=2") as server:
            server.key_file = key_file
            ids = run(server, arguments, failures)
            server.stop()
            check_log(server.read_log(), ids, failures)
    for failure in failures:
        print("FAILED", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
