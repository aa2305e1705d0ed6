"""What one API key may have in flight: refused beyond, free again whatever ends a request."""

import json
import random
import signal
import socket
import threading
import time

import grpc
import pytest
import requests

from raw_http import RawConnection
from server_process import Server, run_in_threads, wait_until

A, B = "sk-a", "sk-b"
PATH = "/v1/completions"
ENDLESS = {"prompt": "The ls command", "max_tokens": 20000, "ignore_eos": True, "stream": True,
           "temperature": 0}
SHORT = {"prompt": "The ls command", "max_tokens": 2}


def keyed(*flags):
    return Server("--api-key", f"{A} name=a", "--api-key", f"{B} name=b", *flags)


@pytest.fixture(scope="module")
def one():
    """A server that allows each key one request."""
    with keyed("--max-requests-per-key", "1", "--set", "http.write_timeout_s=1", "--set",
               "server.response_buffer_bytes=4096") as running:
        yield running


def headers(key):
    return {"Authorization": f"Bearer {key}"}


def ask(server, key=A, **fields):
    return requests.post(server.url + PATH, json=SHORT | fields, headers=headers(key), timeout=60)


def hold(server, key=A, **fields):
    """A stream that has begun and goes on."""
    reply = requests.post(server.url + PATH, json=ENDLESS | fields, headers=headers(key),
                          stream=True, timeout=60)
    if reply.status_code == 200:
        reply.lines = reply.iter_lines()  # kept: its end would be the connection's
        next(reply.lines)
    return reply


def wait_for_place(server, key=A):
    wait_until(lambda: ask(server, key).status_code == 200)


def generate(server, stubs, key=A, **fields):
    messages, services = stubs
    request = messages.GenerateRequest(text="The ls command",
                                       stop=messages.StopRules(max_tokens=2), **fields)
    with grpc.insecure_channel(server.grpc_address) as channel:
        return list(services.InferenceStub(channel).Generate(
            request, metadata=[("x-api-key", key)], timeout=60))


def test_beyond_the_limit_a_request_is_refused_and_other_keys_are_not(one, stubs):
    with hold(one) as held:
        assert held.status_code == 200
        refused = ask(one)
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "key_limit")
        assert "server.max_requests_per_key = 1" in error["message"]
        with pytest.raises(grpc.RpcError) as call:
            generate(one, stubs)
        assert call.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "server.max_requests_per_key = 1" in call.value.details()
        assert ask(one, B).status_code == 200 and generate(one, stubs, B)
        for path in ("/v1/models", "/load"):  # what generates nothing is not counted
            assert requests.get(one.url + path, headers=headers(A), timeout=30).status_code == 200
    wait_for_place(one)


def test_the_refusal_comes_before_the_body(one):
    with hold(one), RawConnection(one) as unread:
        unread.send_request("POST", PATH, b"", [f"Authorization: Bearer {A}",
                                                "Content-Length: 1000000"])
        status, _, _ = unread.read_reply()
        assert status == 429
    wait_for_place(one)


def test_who_waits_for_the_end_finds_a_place(one, stubs):
    """The place is free before the last bytes of an answer are on their way, good or bad."""
    wait_for_place(one)
    for i in range(10):
        assert ask(one).status_code == 200
        with requests.post(one.url + PATH, json=SHORT | {"stream": True}, headers=headers(A),
                           timeout=60) as reply:
            assert reply.status_code == 200 and reply.text.endswith("[DONE]\n\n")
        assert ask(one, n=2).status_code == 400
        assert ask(one, prompt="x" * 400000).status_code == 400
        assert generate(one, stubs)
        with pytest.raises(grpc.RpcError) as refused:
            generate(one, stubs, model="nobody")
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND, i
        assert requests.post(one.url + PATH, data=b"{", headers=headers(A),
                             timeout=60).status_code == 400


def leave_in_the_body(server, _):
    with RawConnection(server) as gone:
        gone.send_request("POST", PATH, b'{"prompt"', [f"Authorization: Bearer {A}",
                                                       "Content-Length: 1000"])
        time.sleep(0.1)


def leave_in_the_stream(server, _):
    assert hold(server).close() is None


def leave_before_the_answer(server, _):
    with RawConnection(server) as gone:
        body = json.dumps(ENDLESS | {"stream": False}).encode()
        gone.send_request("POST", PATH, body, [f"Authorization: Bearer {A}"])
        time.sleep(0.1)


def cancel_the_call(server, stubs):
    messages, services = stubs
    request = messages.GenerateRequest(
        text="The ls command", stop=messages.StopRules(max_tokens=20000, ignore_eos=True))
    with grpc.insecure_channel(server.grpc_address) as channel:
        call = services.InferenceStub(channel).Generate(request, metadata=[("x-api-key", A)])
        next(call)
        call.cancel()


def never_read(server, _):
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", server.port))
    body = json.dumps(ENDLESS | {"stream_options": {"continuous_usage_stats": True,
                                                    "include_usage": True}}).encode()
    slow.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {A}\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_until(lambda: ask(server).status_code == 429)
    wait_for_place(server)  # while it is still connected
    slow.close()


@pytest.mark.parametrize("leave", [leave_in_the_body, leave_in_the_stream, leave_before_the_answer,
                                   cancel_the_call, never_read])
def test_a_client_that_leaves_gives_its_place_back(one, stubs, leave):
    wait_for_place(one)
    leave(one, stubs)
    wait_for_place(one)
    with hold(one) as held:  # once, not twice
        assert held.status_code == 200 and ask(one).status_code == 429
    wait_for_place(one)


def test_tokens_are_counted_before_they_are_queued(stubs):
    with keyed("--max-tokens-per-key", "10000") as server:
        with hold(server, max_tokens=9000) as held:
            assert held.status_code == 200
            refused = ask(server, max_tokens=1500)
            assert refused.status_code == 429 and refused.json()["error"]["code"] == "key_limit"
            assert "1504 more exceed server.max_tokens_per_key = 10000" in refused.text
            assert ask(server, max_tokens=500).status_code == 200
            assert ask(server, B, max_tokens=1500).status_code == 200
        never = ask(server, max_tokens=12000)
        assert never.status_code == 400 and never.json()["error"]["param"] == "max_tokens"
        assert "12004 tokens together" in never.text
        wait_until(lambda: ask(server, max_tokens=9000, stop=["a", "e"]).status_code == 200)
        for _ in range(5):  # none of them leaves tokens behind
            assert ask(server, max_tokens=9000, stop=["a", "e"]).status_code == 200
        rejected = [line for line in requests.get(server.url + "/metrics", headers=headers(A),
                                                  timeout=30).text.splitlines()
                    if 'reason="key_limit"' in line]
        assert len(rejected) == 1 and float(rejected[0].split()[-1]) >= 1


def test_a_reload_keeps_what_is_counted(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"{A} name=a\n")
    with Server("--api-key-file", str(keys), "--max-requests-per-key", "1") as server:
        with hold(server):
            keys.write_text(f"# a new name for the old key\n{B}\n{A} name=renamed\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("SIGHUP: 2 API keys")
            assert ask(server).status_code == 429
            assert ask(server, B).status_code == 200
        wait_for_place(server)
        server.wait_for_log("key=renamed")


def test_never_over_the_limit_and_all_places_free_afterwards():
    """Sixteen clients a key: some wait for their answers, some leave in the middle."""
    limit, lock = 4, threading.Lock()
    held, most, outcomes = {A: 0, B: 0}, {A: 0, B: 0}, {200: 0, 429: 0}

    def change(key, by):
        with lock:
            held[key] += by
            most[key] = max(most[key], held[key])

    with keyed("--max-requests-per-key", str(limit)) as server:
        deadline = time.monotonic() + 8

        def act(number):
            key, dice = (A, B)[number % 2], random.Random(number)
            while time.monotonic() < deadline:
                if dice.random() < 0.5:
                    status = ask(server, key, stream=dice.random() < 0.5).status_code
                else:
                    reply = hold(server, key)
                    status = reply.status_code
                    if status == 200:  # it runs until it is left: no other can have its place
                        change(key, +1)
                        time.sleep(dice.random() / 10)
                        change(key, -1)
                    reply.close()
                with lock:
                    outcomes[status] += 1

        run_in_threads(act, range(32))
        assert outcomes[200] > 20 and outcomes[429] > 20, outcomes
        assert 0 < max(most.values()) <= limit, most
        server.wait_until_idle(headers=headers(A))
        for key in (A, B):
            wait_for_place(server, key)
            streams = [hold(server, key) for _ in range(limit)]
            assert [stream.status_code for stream in streams] == [200] * limit
            assert ask(server, key).status_code == 429
            for stream in streams:
                stream.close()
