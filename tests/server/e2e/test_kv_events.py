"""Routers are told what the prefix cache holds, as vLLM tells them."""

import json
import random
import re
import socket
import subprocess
import time

import pytest
import zmq

from kv_event_subscriber import PAGE, AllBlocksCleared, Subscriber, hashes_of, stored
from server_process import BINARY, DEVICE_FLAGS, ROOT, Server

FREE = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": "tcp://127.0.0.1:*",
        "replay_endpoint": "tcp://127.0.0.1:*", "topic": "kv@pod-7@demo"}
DENSE = {"sparse_attention": {"mode": "dense"}}
PBS = {"sparse_attention": {"mode": "pbs"}}


def config(**fields):
    return ["--kv-events-config", json.dumps(FREE | fields)]


@pytest.fixture(scope="module")
def running():
    with Server(*config()) as server:
        yield server


@pytest.fixture
def subscriber(running):
    with Subscriber(running) as found:
        yield found


def made_up(count, seed):
    return random.Random(seed).choices(range(10, 4000), k=count)


def test_a_conversation_of_two_turns(running, subscriber):
    def turn(messages):
        body = {"messages": messages, **DENSE}
        prompt = running.post("/tokenize", {"messages": messages}).json()["tokens"]
        reply = running.post("/v1/chat/completions", body | {"max_tokens": 40, "temperature": 0})
        return prompt, reply.json()["choices"][0]["message"]["content"], subscriber.receive()

    conversation = [{"role": "user", "content": "The grass is green. The sky is blue. " * 50}]
    prompt, answer, first = turn(conversation)
    old = hashes_of(first, "demo-dense")
    assert len(old) >= 3
    assert {message.topic for message in first} == {"kv@pod-7@demo-dense"}
    pages = len(prompt) // PAGE
    assert subscriber.tokens_up_to(old[pages - 1]) == prompt[:pages * PAGE]
    assert stored(first)[0].parent_block_hash is None
    assert {event.medium for event in stored(first)} == {"GPU"}
    assert all(abs(message.batch.ts - time.time()) < 60 for message in first)
    assert all(message.batch.data_parallel_rank == 0 for message in first)

    conversation += [{"role": "assistant", "content": answer},
                     {"role": "user", "content": "And what is the colour of the sky? " * 50}]
    prompt, _, second = turn(conversation)
    new = hashes_of(second, "demo-dense")
    assert len(new) >= 2 and not set(old) & set(new), "what was there is not stored again"
    assert stored(second)[0].parent_block_hash in old
    pages = len(prompt) // PAGE
    chain = next(block for block in new if len(subscriber.tokens_up_to(block)) == pages * PAGE)
    assert subscriber.tokens_up_to(chain) == prompt[:pages * PAGE]


def test_a_turn_that_brings_nothing_new_says_nothing(running, subscriber):
    prompt = made_up(3 * PAGE + 5, 1)
    running.complete(prompt, max_tokens=1, **DENSE)
    assert len(hashes_of(subscriber.receive(), "demo-dense")) == 3
    running.complete(prompt, max_tokens=1, **DENSE)
    assert subscriber.receive() == []


def test_dense_and_pbs_are_two_models(running, subscriber):
    prompt = made_up(33 * PAGE, 2)
    running.complete(prompt, max_tokens=1, **PBS)
    running.complete(prompt, max_tokens=1, **DENSE)
    messages = subscriber.receive()
    sparse, dense = hashes_of(messages, "demo"), hashes_of(messages, "demo-dense")
    assert len(sparse) >= 24 and len(dense) == 33 and not set(sparse) & set(dense)
    assert subscriber.tokens_up_to(sparse[-1]) == prompt[:len(sparse) * PAGE]
    assert subscriber.tokens_up_to(dense[-1]) == prompt[:len(dense) * PAGE]

    other = {"sparse_attention": {"mode": "pbs", "threshold": 0.5}}
    running.complete(prompt, max_tokens=1, **other)
    models = {message.model for message in subscriber.receive()}
    assert len(models) == 1 and re.fullmatch("demo-pbs-[0-9a-f]{8}", *models)


def test_a_salt_stands_with_the_first_block(running, subscriber):
    prompt = made_up(2 * PAGE + 1, 3)
    running.complete(prompt, max_tokens=1, cache_salt="tenant", **DENSE)
    running.complete(prompt, max_tokens=1, **DENSE)
    salted, plain = stored(subscriber.receive())
    assert salted.extra_keys == [("tenant",), None] and plain.extra_keys is None
    assert salted.token_ids == plain.token_ids == prompt[:2 * PAGE]
    assert not set(salted.block_hashes) & set(plain.block_hashes)


def test_hashes_are_the_same_in_every_process(running, subscriber):
    prompt = made_up(2 * PAGE + 1, 4)
    running.complete(prompt, max_tokens=1, **DENSE)
    here = hashes_of(subscriber.receive(), "demo-dense")
    with Server(*config(topic="kv@pod-8@demo")) as second, Subscriber(second) as other:
        second.complete(prompt, max_tokens=1, **DENSE)
        assert hashes_of(other.receive(), "demo-dense") == here and len(here) == 2


def test_what_was_missed_is_repeated(running, subscriber):
    running.complete(made_up(5 * PAGE, 5), max_tokens=1, **DENSE)
    live = subscriber.receive()
    history = subscriber.replay(0)
    assert [message.sequence for message in history] == list(range(len(history)))
    assert [message.model for message in history[:2]] == ["demo", "demo-dense"]
    assert all(message.batch.events == [AllBlocksCleared()] for message in history[:2])
    assert history[-len(live):] == live
    assert subscriber.replay(live[-1].sequence) == live[-1:]
    assert subscriber.replay(live[-1].sequence + 1) == []
    metrics = running.metrics()
    assert metrics["pbserve:kv_event_messages_total"] == len(history)
    assert metrics["pbserve:kv_event_messages_replayed_total"] > len(history)
    assert metrics["pbserve:kv_events_dropped_total"] == 0


def test_evicted_blocks_are_removed():
    with Server(*config(), "--kv-cache-memory-bytes", "10M", "--max-model-len", "1024") as server, \
            Subscriber(server) as subscriber:
        num_pages = int(re.search(r"KV cache of (\d+) pages", server.read_log())[1])
        assert num_pages < 24
        prompts = [made_up(6 * PAGE + 1, 10 + seed) for seed in range(8)]
        for prompt in prompts:
            server.complete(prompt, max_tokens=1, **DENSE)
            subscriber.receive()
            assert len(subscriber.blocks) <= num_pages
            for _, parent, _ in subscriber.blocks.values():
                assert parent is None or parent in subscriber.blocks, "it outlives its parent"
        assert len(subscriber.blocks) > num_pages - 8
        server.complete(prompts[0], max_tokens=1, **DENSE)
        assert len(hashes_of(subscriber.receive(), "demo-dense")) == 6, "stored again"


def test_what_is_dropped_shows_as_a_gap():
    with Server(*config(max_queue_size=2)) as server, Subscriber(server) as subscriber:
        server.complete(made_up(40 * PAGE, 20), max_tokens=1, **DENSE)
        server.complete(made_up(PAGE + 1, 21), max_tokens=1, **DENSE)
        sequences = [message.sequence for message in subscriber.receive()]
        assert len(sequences) < sequences[-1] - sequences[0] + 1
        repeated = [message.sequence for message in subscriber.replay(sequences[0])]
        assert repeated == sequences, "nobody has what was never published"
        assert server.metrics()["pbserve:kv_events_dropped_total"] > 0
        server.wait_for_log("KV events were dropped")


def test_a_subscriber_that_reads_nothing_holds_up_nobody(running, subscriber):
    stuck = subscriber.context.socket(zmq.SUB)
    stuck.setsockopt(zmq.RCVHWM, 1)
    stuck.connect(subscriber.endpoint)
    stuck.setsockopt_string(zmq.SUBSCRIBE, "")
    asking = [subscriber.context.socket(zmq.DEALER) for _ in range(20)]
    for client in asking:
        client.setsockopt(zmq.RCVHWM, 1)
        client.connect(subscriber.replay_endpoint)
        client.send_multipart([b"", bytes(8)])
    running.complete(made_up(9 * PAGE, 30), max_tokens=1, **DENSE)
    assert len(hashes_of(subscriber.receive(), "demo-dense")) == 9
    assert subscriber.replay(0)


GARBAGE = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(64), b"\xff" * 64,
           b"\xff" + bytes(8) + b"\x7f\x03", bytes(range(256)) * 64,
           # A ZMTP 3 greeting, then a frame that says to be of 2^63 bytes.
           b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48) + b"\x02" + b"\x7f" + b"\xff" * 7]


def test_garbage_harms_nobody(running, subscriber):
    noise = random.Random(6)
    for endpoint in (subscriber.endpoint, subscriber.replay_endpoint):
        port = int(endpoint.rsplit(":", 1)[1])
        for data in [*GARBAGE, *(noise.randbytes(300) for _ in range(50))]:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(data)
    for frames in ([b"x"], [b""] * 1000, [b"", b"12345678", b""], [b"", b"\xff" * 8],
                   [b"", bytes(1 << 20)], [b"", b"1234567"]):
        client = subscriber.context.socket(zmq.DEALER)
        client.connect(subscriber.replay_endpoint)
        client.send_multipart(frames)
        client.poll(50)
        client.close(linger=0)
    running.complete(made_up(2 * PAGE + 1, 7), max_tokens=1, **DENSE)
    assert len(hashes_of(subscriber.receive(), "demo-dense")) == 2
    assert subscriber.replay(0)


def refusal(*flags):
    done = subprocess.run([BINARY, "--model", "models/demo", "--port", "0", "--grpc-port", "0",
                           *DEVICE_FLAGS, *flags], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("key", ["endpoint", "replay_endpoint"])
def test_a_port_in_use_names_the_endpoint(key):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        log = refusal(*config(**{key: endpoint}))
    assert f"kv_events.{key} = {endpoint}: Address already in use" in log


def test_it_is_off_by_default_and_warns_where_others_can_listen(server):
    assert "KV events" not in server.read_log()
    with Server(*config(endpoint="tcp://*:*")) as open_to_all:
        assert "whoever can connect reads the tokens of every prompt" in open_to_all.read_log()


@pytest.mark.parametrize("pod_ip", ["", "10.1.2.3"])
def test_the_topic_has_a_default(monkeypatch, pod_ip):
    monkeypatch.setenv("POD_IP", pod_ip)
    with Server(*config(topic=""), "--served-model-name", "mine") as server, \
            Subscriber(server) as subscriber:
        pod = f"{pod_ip}:{server.port}" if pod_ip else socket.gethostname()
        topics = {message.topic for message in subscriber.replay(0)}
        assert topics == {f"kv@{pod}@mine", f"kv@{pod}@mine-dense"}
