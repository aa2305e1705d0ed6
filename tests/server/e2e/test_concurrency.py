"""Many clients at once, of every kind: each gets the text that it gets when it is alone."""

import dataclasses
import json
import threading
import time

import grpc
import pytest
import requests

from server_process import DEVICE, ROOT, run_in_threads

# Clients, tokens of the longest prompt, tokens of an output. On the CPU no more than takes two
# cores some seconds; on a GPU outputs long enough that the last client comes before the first
# one leaves.
NUM_CLIENTS, LONGEST, NUM_OUTPUT_TOKENS = {"cpu": (24, 5000, 32), "cuda": (64, 12000, 512)}[DEVICE]
SHORTEST = 8
NUM_TEXTS = 4  # that prompts begin with
WAYS = ("whole", "stream", "grpc")


@dataclasses.dataclass
class Ask:
    way: str
    prompt: list
    sampling: dict
    shared_salt: str  # under which it shares cached pages when it has company
    own_salt: str


@dataclasses.dataclass
class Answer:
    text: str
    num_tokens: int
    num_cached: int


@pytest.fixture(scope="module")
def asks(server):
    """Lengths grow geometrically. Neighbours begin with one text, so the longer one can continue
    from the pages of the shorter one, and end differently. Half of them draw at random."""
    words = (ROOT / "tests/bench/haystack/postgresql-15.txt").read_text().split()
    part = len(words) // NUM_TEXTS
    texts = [server.post("/tokenize", {"prompt": " ".join(words[i * part:(i + 1) * part])}).json()
             ["tokens"] for i in range(NUM_TEXTS)]
    made = []
    for i in range(NUM_CLIENTS):
        length = round(SHORTEST * (LONGEST / SHORTEST) ** (i / (NUM_CLIENTS - 1)))
        text = i // 4 % NUM_TEXTS
        prompt = texts[text][:length - 4] + texts[text][-4 * (i + 1):][:4]
        made.append(Ask(
            way=WAYS[i % len(WAYS)], prompt=prompt, shared_salt=f"together/{text}",
            own_salt=f"alone/{i}",
            sampling={"temperature": 0} if i % 2 else {"temperature": 1, "seed": i}))
    assert max(len(ask.prompt) for ask in made) == LONGEST
    return made


def answer_over_http(server, ask, salt):
    body = {"prompt": ask.prompt, "max_tokens": NUM_OUTPUT_TOKENS, "ignore_eos": True,
            "cache_salt": salt} | ask.sampling
    if ask.way == "whole":
        parts = [server.post("/v1/completions", body).json()]
    else:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        with server.post("/v1/completions", body, stream=True) as reply:
            lines = [line for line in reply.iter_lines() if line.startswith(b"data: ")]
        assert lines.pop() == b"data: [DONE]"
        parts = [json.loads(line[len("data: "):]) for line in lines]
    assert "usage" in parts[-1], parts[-1]
    usage = parts[-1]["usage"]
    return Answer(text="".join(c["text"] for part in parts for c in part["choices"]),
                  num_tokens=usage["completion_tokens"],
                  num_cached=usage["prompt_tokens_details"]["cached_tokens"])


def answer_over_grpc(stub, messages, ask, salt):
    request = messages.GenerateRequest(
        token_ids=messages.TokenIds(ids=ask.prompt), cache_salt=salt,
        sampling=messages.SamplingParams(**ask.sampling),
        stop=messages.StopRules(max_tokens=NUM_OUTPUT_TOKENS, ignore_eos=True))
    events = list(stub.Generate(request))
    usage = events[-1].finished.usage
    return Answer(text="".join(event.chunk.text for event in events),
                  num_tokens=usage.completion_tokens, num_cached=usage.cached_tokens)


class PeakLoad(threading.Thread):
    """The most requests that had started and not ended at any look, while `with` lasts."""

    def __init__(self, server):
        super().__init__()
        self.server = server
        self.over = threading.Event()
        self.num_running = 0

    def run(self):
        while not self.over.wait(0.01):
            load = requests.get(self.server.url + "/load", timeout=30).json()
            self.num_running = max(self.num_running, load["num_running"])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def test_together_gives_what_alone_gives(server, stubs, asks):
    messages, services = stubs
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = services.InferenceStub(channel)

        def answer(ask, salt):
            if ask.way == "grpc":
                return answer_over_grpc(stub, messages, ask, salt)
            return answer_over_http(server, ask, salt)

        alone = [answer(ask, ask.own_salt) for ask in asks]
        with PeakLoad(server) as peak:
            begin = time.monotonic()
            together = run_in_threads(lambda ask: answer(ask, ask.shared_salt), asks)
            seconds = time.monotonic() - begin
    print(f"{len(asks)} clients in {seconds:.1f} s, up to {peak.num_running} at once, "
          f"{sum(a.num_cached for a in together)} prompt tokens shared")
    different = [(i, ask.way, len(ask.prompt), ask.sampling, a.text, b.text)
                 for i, (ask, a, b) in enumerate(zip(asks, alone, together)) if a.text != b.text]
    assert not different, f"{len(different)} of {len(asks)}: {different[0]}"
    assert all(a.num_tokens == NUM_OUTPUT_TOKENS for a in alone + together)
    # What the comparison rests on: nothing shared alone, pages and steps shared together.
    assert all(a.num_cached == 0 for a in alone)
    assert sum(a.num_cached for a in together) > 0
    assert peak.num_running >= len(asks) // 2
