"""server.max_buffered_bytes: one budget for whatever the wire makes the server hold."""

import json
import socket
import subprocess
import time

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

import server_process
from process_memory import assert_rss_returns, rss_bytes
from raw_grpc import RawGrpc
from raw_http import RawConnection
from server_process import ROOT, Server, wait_until

MIB = 1 << 20
KEY = "sesame"
WITH_KEY = f"Authorization: Bearer {KEY}"
TOKENIZE = "/pbserve.v1.Inference/Tokenize"


def small_budget(mib):
    return ["--set", f"server.max_buffered_bytes={mib * MIB}", "--set",
            f"http.max_body_bytes={mib * MIB}", "--set", f"grpc.max_message_bytes={mib * MIB}"]


@pytest.fixture(scope="module")
def locked():
    with Server("--api-key", KEY, *small_budget(64)) as running:
        with RawConnection(running) as connection:  # what the engine touches first
            connection.send_request("POST", "/v1/completions", b'{"prompt": "x", "max_tokens": 2}',
                                    [WITH_KEY])
            assert connection.read_reply()[0] == 200
        assert serving_status(running) == health_pb2.HealthCheckResponse.SERVING
        time.sleep(0.5)
        yield running


def serving_status(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(),
                                                         timeout=10).status


def hold_body(server, num_bytes):
    """A body of which the last byte is missing."""
    connection = RawConnection(server)
    connection.send(f"POST /tokenize HTTP/1.1\r\nHost: x\r\n{WITH_KEY}\r\n"
                    f"Content-Length: {num_bytes}\r\n\r\n")
    connection.send(b" " * (num_bytes - 1))
    return connection


def grpc_upload(server, num_bytes, for_s):
    """Whether the server ended the call of one large message, whose last byte is withheld."""
    with RawGrpc(server) as connection:
        connection.listen(0.2)
        stream = connection.start_call(TOKENIZE, KEY)
        connection.begin_message(stream, num_bytes + 1)
        until = time.monotonic() + for_s
        connection.upload(stream, num_bytes, until)
        while stream not in connection.closed and time.monotonic() < until:
            connection.listen(0.1)
        return stream in connection.closed


def test_http_and_grpc_share_one_budget(locked):
    before = rss_bytes(locked), locked.num_descriptors(), locked.num_threads()
    held = hold_body(locked, 40 * MIB)
    wait_until(lambda: rss_bytes(locked) > before[0] + 35 * MIB)
    assert grpc_upload(locked, 40 * MIB, for_s=15)
    locked.wait_for_log("what is being received finds no room")
    assert rss_bytes(locked) < before[0] + 140 * MIB
    # What needs no key has bounds of its own, and is answered.
    assert serving_status(locked) == health_pb2.HealthCheckResponse.SERVING
    with RawConnection(locked) as probe:
        probe.send_request("GET", "/health")
        assert probe.read_reply()[0] == 200
    with RawConnection(locked) as second:  # the other way round
        second.send(f"POST /tokenize HTTP/1.1\r\nHost: x\r\n{WITH_KEY}\r\n"
                    f"Content-Length: {40 * MIB}\r\n\r\n")
        try:
            second.send(b" " * (40 * MIB - 1))
        except ConnectionError:
            pass
        status, headers, body = second.read_reply()
        assert status == 429 and b"server.max_buffered_bytes = 67108864" in body
        assert int(headers["retry-after"]) >= 1
    held.close()
    assert_rss_returns(locked, before[0], slack_bytes=30 * MIB)
    wait_until(lambda: locked.num_descriptors() <= before[1] + 2)
    assert locked.num_threads() <= before[2] + 4  # gRPC's own, started at need


class Deaf:
    """Streams, and reads nothing of it."""

    def __init__(self, server, number):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", server.port))
        body = json.dumps({"prompt": f"The ls command {number}", "max_tokens": 30000,
                           "ignore_eos": True, "stream": True}).encode()
        self.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
                            b"%d\r\n\r\n" % len(body) + body)


def num_running(server):
    return requests.get(server.url + "/load", timeout=30).json()["num_running"]


def test_unread_responses_spend_it_and_are_cancelled():
    """One alone would be allowed 64 MB; together they must not hold more than the budget."""
    with Server(*small_budget(1), "--set", "server.response_buffer_bytes=64M") as server:
        deaf = [Deaf(server, i) for i in range(12)]
        wait_until(lambda: num_running(server) == len(deaf))
        wait_until(lambda: num_running(server) < len(deaf), timeout_s=60)
        body = {"prompt": "The ls command", "max_tokens": 4}  # who reads is served, or told to wait
        wait_until(lambda: server.post("/v1/completions", body).status_code == 200, timeout_s=10)
        for client in deaf:
            client.socket.close()
        server.wait_for_log("the response finds no room")
        server.wait_for_log("status=429")
        server.wait_until_idle()


def test_what_is_pipelined_behind_a_generation_spends_it():
    """60 KB behind each of 40: where they find no room the answer is the connection's last."""
    pipelined = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 1700
    with Server(*small_budget(1)) as server:
        held = [RawConnection(server) for _ in range(40)]
        for connection in held:
            connection.send_completion(max_tokens=400, ignore_eos=True)
            connection.send(pipelined)
        ends = []
        for connection in held:
            status, headers, _ = connection.read_reply()
            assert status == 200
            ends.append(headers.get("connection") == "close")
            connection.close()
        assert any(ends) and not all(ends), ends


def refused_start(*flags, shell=""):
    command = f'{shell} exec "$0" "$@"'
    return subprocess.run(["sh", "-c", command, server_process.BINARY, "--model", "models/demo",
                           "--port", "0", "--grpc-port", "0", *flags], capture_output=True,
                          text=True, timeout=60, cwd=ROOT)


def test_a_budget_beyond_the_memory_limit_is_refused_at_start():
    result = refused_start("--set", "server.max_buffered_bytes=1000G")
    assert result.returncode == 1
    assert ("server.max_buffered_bytes = 1073741824000, contexts.max_bytes = 268435456 and "
            in result.stderr)
    assert "do not fit into " in result.stderr
    limited = refused_start("--set", "server.max_buffered_bytes=20G",
                            shell=f"ulimit -v {10 << 20};")
    assert limited.returncode == 1
    assert f"do not fit into RLIMIT_AS = {10 << 30}: lower them" in limited.stderr


def test_former_keys_name_the_new_one():
    for former in ("http.max_buffered_body_bytes", "grpc.max_buffered_message_bytes"):
        result = refused_start("--set", f"{former}=1G")
        assert result.returncode == 1
        assert f"{former} is now server.max_buffered_bytes" in result.stderr
