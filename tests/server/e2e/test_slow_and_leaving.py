"""Clients that read slowly, stop reading, pipeline, or leave in part."""

import json
import select
import socket
import time

import pytest

from raw_http import RawConnection
from server_process import Server

ENDLESS = {"max_tokens": 30000, "ignore_eos": True}


@pytest.fixture(scope="module")
def impatient():
    with Server("--set", "http.write_timeout_s=1") as running:
        yield running


def ask_for_megabytes(server):
    """A connection with a small receive buffer to which some 8 MB are being sent."""
    connection = RawConnection.__new__(RawConnection)
    connection.socket = socket.socket()
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    connection.socket.settimeout(30)
    connection.socket.connect(("127.0.0.1", server.port))
    connection.pending = b""
    tokens = server.post("/tokenize", {"prompt": " directories"}).json()["tokens"]
    body = json.dumps({"tokens": tokens * (700_000 // len(tokens))}).encode()
    connection.send_request("POST", "/detokenize", body)
    head = connection.read_until(b"\r\n\r\n").lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert length > 4 << 20
    return connection, length


def test_a_slow_but_steady_reader_gets_a_large_reply(impatient):
    connection, length = ask_for_megabytes(impatient)
    received = len(connection.pending)
    begin = time.monotonic()
    with connection:
        while received < length:
            piece = connection.socket.recv(128 << 10)
            assert piece, f"cut off after {received} of {length} bytes"
            received += len(piece)
            time.sleep(len(piece) / (1 << 20))
    assert time.monotonic() - begin > 3  # three write timeouts


def test_a_reader_that_stops_is_cut_off(impatient):
    connection, length = ask_for_megabytes(impatient)
    received = len(connection.pending)
    with connection:
        time.sleep(4)
        try:
            while piece := connection.socket.recv(1 << 20):
                received += len(piece)
        except ConnectionError:
            pass
    assert received < length


def assert_logged(server, line, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while line not in server.read_log():
        assert time.monotonic() < deadline, f"{line} is not in the log"
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("num_bytes", [100_000, 1 << 20])
def test_who_pipelines_much_and_leaves_is_noticed(server, stream, num_bytes):
    name = f"much-{num_bytes}-{stream}"
    connection = RawConnection(server)
    connection.send_completion(stream=stream, request_id=name, **ENDLESS)
    time.sleep(0.3)
    connection.send(b"a" * num_bytes)
    connection.close()
    server.wait_until_idle(timeout_s=5)
    assert_logged(server, f"id={name} status=499")


def test_pipelining_beyond_the_bound_ends_the_connection_after_the_answer(server):
    with RawConnection(server) as connection:
        connection.send_completion(max_tokens=300, ignore_eos=True)
        for _ in range(4000):
            connection.send_request("GET", "/health", headers=["X: " + "a" * 100])
        status, headers, body = connection.read_reply()
        assert status == 200 and headers["connection"] == "close"
        assert json.loads(body)["usage"]["completion_tokens"] == 300
        assert connection.is_closed_by_peer()


def test_a_half_close_cancels_a_whole_answer_and_says_so(server):
    with RawConnection(server) as connection:
        connection.send_completion(request_id="half-1", **ENDLESS)
        time.sleep(0.3)
        connection.socket.shutdown(socket.SHUT_WR)
        status, headers, body = connection.read_reply()
        assert (status, headers["connection"]) == (499, "close")
        assert "closed its sending side" in json.loads(body)["error"]["message"]
        assert connection.is_closed_by_peer()
    server.wait_until_idle(timeout_s=5)
    assert_logged(server, "id=half-1 status=499")


def test_a_half_close_cancels_a_stream_and_says_so(server):
    with RawConnection(server) as connection:
        connection.send_completion(stream=True, request_id="half-2", **ENDLESS)
        connection.read_until(b"data: ")
        connection.socket.shutdown(socket.SHUT_WR)
        rest = connection.read_until(b"\r\n0\r\n\r\n")
        assert rest.endswith(b"\r\n0\r\n\r\n") and b"[DONE]" not in rest
        event = rest.split(b"data: ")[-1].split(b"\n\n")[0]
        assert "closed its sending side" in json.loads(event)["error"]["message"]
    server.wait_until_idle(timeout_s=5)
    assert_logged(server, "id=half-2 status=499")


def test_a_half_close_does_not_stop_what_answers_at_once(server):
    with RawConnection(server) as connection:
        connection.send_request("POST", "/tokenize", b'{"prompt": "The ls command"}')
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read_reply()[0] == 200
        assert select.select([connection.socket], [], [], 5)[0]  # and then the close
