"""Clients that read slowly, or stop reading."""

import json
import socket
import time

import pytest

from raw_http import RawConnection
from server_process import Server


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
