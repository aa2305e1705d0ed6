"""What clients do to a server, well and badly. An actor does one thing once and checks the answer.

Every request that the server must answer is booked under an id of its own; the ledger is compared
with the server's log at the end: one line an id, no more and no less.
"""

import json
import os
import random
import signal
import socket
import threading
import time
import uuid

import requests

from server_process import run_in_threads

KEY = "kept"
HEADERS = {"Authorization": f"Bearer {KEY}"}
WORDS = ("list file folder name option print output sort long human size time user group link"
         " mode block byte line word column page").split()


class Ledger:
    """Ids of requests, and what came of them. Thread-safe."""

    def __init__(self):
        self.lock = threading.Lock()
        self.ids = []
        self.counts = {}

    def new_id(self):
        with self.lock:
            self.ids.append("chaos-" + uuid.uuid4().hex)
            return self.ids[-1]

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1


def prompt(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def body(rng, **fields):
    return {"prompt": prompt(rng, rng.choice((4, 40, 400, 3000))),
            "max_tokens": rng.choice((1, 8, 64)), "temperature": rng.choice((0, 0.8))} | fields


def post(server, ledger, fields, **options):
    name = ledger.new_id()
    reply = requests.post(server.url + "/v1/completions", json=fields, timeout=300,
                          headers=HEADERS | {"X-Request-Id": name}, **options)
    assert reply.headers["X-Request-Id"] == name
    return reply


def complete(server, rng, ledger):
    fields = body(rng)
    reply = post(server, ledger, fields)
    assert reply.status_code in (200, 429), reply.text
    if reply.status_code == 200:
        answer = reply.json()
        assert len(answer["choices"]) == 1
        assert answer["usage"]["completion_tokens"] <= fields["max_tokens"]
    ledger.count(f"completions {reply.status_code}")


def stream(server, rng, ledger, pause_s=0.0):
    with post(server, ledger, body(rng, stream=True), stream=True) as reply:
        assert reply.status_code in (200, 429), reply.text
        ends = 0
        for line in reply.iter_lines():
            time.sleep(pause_s)
            ends += line == b"data: [DONE]"
        assert ends == (reply.status_code == 200), "a stream ends once"
    ledger.count(f"streams {reply.status_code}")


def read_slowly(server, rng, ledger):
    stream(server, rng, ledger, pause_s=0.05)


def abort(server, rng, ledger):
    fields = body(rng, stream=True, max_tokens=2000, ignore_eos=True)
    with post(server, ledger, fields, stream=True) as reply:
        for _ in zip(range(rng.randrange(4)), reply.iter_lines()):
            pass
    ledger.count("aborts")


def burst(server, rng, ledger):
    run_in_threads(lambda seed: complete(server, random.Random(seed), ledger),
                   [rng.random() for _ in range(24)])


BAD_BODIES = (b"", b"{", b"[1, 2", b'{"prompt": 7}', b'{"prompt": "x", "max_tokens": -1}',
              b"\xff\xfe", b'{"prompt": [' + b"1," * 5000 + b"1e999]}", b'{"a":' * 300,
              b'"' + b"x" * 100_000 + b'"',
              json.dumps({"prompt": "x", "stop": ["a"] * 50}).encode())
HALF_A_HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le"


def send_bad_json(server, rng, ledger):
    reply = requests.post(server.url + "/v1/completions", data=rng.choice(BAD_BODIES),
                          headers=HEADERS | {"Content-Type": "application/json"}, timeout=60)
    assert reply.status_code in (400, 429), reply.text  # a full queue refuses before it reads
    ledger.count(f"bad bodies {reply.status_code}")


def send_garbage(server, rng, ledger):
    """Whatever comes back, or nothing: the others must not notice."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        try:
            connection.sendall(rng.randbytes(rng.choice((1, 100, 20_000))))
            connection.recv(4096)
        except OSError:
            pass
    ledger.count("garbage")


def come_without_a_key(server, rng, ledger):
    key = rng.choice(({}, {"Authorization": "Bearer wrong"}, {"Authorization": "x" * 10_000}))
    reply = requests.post(server.url + "/v1/completions", json={"prompt": "x"}, headers=key,
                          timeout=60)
    assert reply.status_code == 401, reply.text
    ledger.count("strangers")


def hold_a_connection(server, rng, ledger):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(HALF_A_HEAD[:rng.randrange(50)])
        time.sleep(rng.random() * 3)
    ledger.count("held connections")


def tokenize(server, rng, ledger):
    text = prompt(rng, rng.choice((10, 6_000)))
    reply = requests.post(server.url + "/tokenize", json={"prompt": text}, headers=HEADERS,
                          timeout=120)
    assert reply.status_code == 200, reply.text
    assert reply.json()["count"] > 0
    ledger.count("tokenize")


def scrape(server, rng, ledger):
    for path in ("/health", "/metrics", "/load", "/config"):
        assert requests.get(server.url + path, headers=HEADERS, timeout=60).status_code == 200, path
    ledger.count("scrapes")


def reload_keys(server, rng, ledger):
    """Other keys come and go; the one in use stays."""
    others = "".join(f"other-{rng.random()}\n" for _ in range(rng.randrange(5)))
    fresh = server.key_file.with_suffix(".new")
    fresh.write_text(f"{KEY}\n{others}")
    fresh.rename(server.key_file)
    os.kill(server.process.pid, signal.SIGHUP)
    ledger.count("key reloads")


# With how often each is drawn.
ACTORS = {complete: 30, stream: 20, read_slowly: 3, abort: 15, burst: 1, send_bad_json: 10,
          send_garbage: 6, come_without_a_key: 5, hold_a_connection: 3, tokenize: 4, scrape: 3,
          reload_keys: 1}
