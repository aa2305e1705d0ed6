"""Memory that the wire can take: bounded, none of it without a key, and all of it given back."""

import json
import resource
import select
import time
import time

import pytest

from process_memory import assert_rss_returns, rss_bytes, spare_memory
from raw_http import RawConnection
from server_process import Server

KEY = "Authorization: Bearer secret"
CHUNKED = "Transfer-Encoding: chunked"
SMALL_BUDGET = ["--set", "server.max_buffered_bytes=4M", "--set", "http.max_body_bytes=4M",
                "--set", f"grpc.max_message_bytes={4 << 20}"]
PIECE = b"a" * (1 << 20)
FLOOD_PIECES = 256
LARGE = json.dumps({"prompt": "word " * 600_000}).encode()  # 3 MB


@pytest.fixture(scope="module")
def locked():
    with Server("--api-key", "secret", *SMALL_BUDGET) as running:
        yield running


def request(path="/v1/completions", *lines, method="POST"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def is_answered(connection):
    return bool(select.select([connection.socket], [], [], 0)[0])


def flood(connection, server, start):
    """Sends without end until there is an answer; the most that the server held meanwhile."""
    connection.send(start)
    peak = 0
    for _ in range(FLOOD_PIECES):
        if is_answered(connection):
            break
        try:
            connection.send(PIECE)
        except ConnectionError:
            break
        peak = max(peak, rss_bytes(server))
    return peak


@pytest.mark.parametrize("frame", [b"1;", b"1;a=\"", b"0;", b"0\r\nX: ", b"1\r\na\r\n0\r\nX: "],
                         ids=["extension", "quoted", "last", "trailer", "after-data"])
@pytest.mark.parametrize("head, expected", [
    (request("/health", CHUNKED, method="GET"), 400),
    (request("/v1/completions", CHUNKED), 401),
    (request("/v1/completions", CHUNKED, KEY), 431),
], ids=["open", "no-key", "key"])
def test_chunk_frames_cannot_grow_memory(locked, head, expected, frame):
    baseline = rss_bytes(locked)
    with RawConnection(locked) as connection:
        peak = flood(connection, locked, head + frame)
        status, _, body = connection.read_reply()
        assert status == expected, body
        assert status != 431 or b"http.max_header_bytes = 65536" in body
    assert peak < baseline + (16 << 20)
    assert_rss_returns(locked, baseline)


def test_many_trailers_cannot_grow_memory(locked):
    baseline = rss_bytes(locked)
    lines = b"".join(b"X-%d: a\r\n" % i for i in range(200_000))
    with RawConnection(locked) as connection:
        try:
            connection.send(request("/v1/completions", CHUNKED, KEY) + b"0\r\n" + lines)
        except ConnectionError:
            pass
        assert connection.read_reply()[0] == 431
    assert_rss_returns(locked, baseline)


def withhold_the_last_byte(server, head, length):
    """A body that is all sent but its end; the server may close before."""
    connection = RawConnection(server)
    try:
        connection.send(head + b" " * (length - 1))
    except ConnectionError:
        pass
    return connection


@pytest.mark.parametrize("method, path, lines, expected", [
    ("GET", "/health", [], 400), ("GET", "/ready", [KEY], 400), ("HEAD", "/healthz", [], 400),
    ("POST", "/health", [KEY], 405), ("POST", "/v1/completions", [], 401),
    ("POST", "/tokenize", ["Authorization: Bearer wrong"], 401), ("POST", "/nope", [KEY], 404),
    ("GET", "/v1/models", [KEY], 400),
])
def test_only_served_bodies_take_the_budget(locked, method, path, lines, expected):
    """Two of these bodies would leave nothing of the budget of 4 MB."""
    length = 2 << 20
    head = request(path, f"Content-Length: {length}", *lines, method=method)
    baseline = rss_bytes(locked)
    held = [withhold_the_last_byte(locked, head, length) for _ in range(17)]
    with RawConnection(locked) as honest:
        for _ in range(2):
            honest.send_request("POST", "/tokenize", LARGE, [KEY])
            status, _, reply = honest.read_reply()
            assert status == 400 and b"the context limit" in reply  # read whole, and understood
    for connection in held:
        assert connection.read_reply(has_body=False)[0] in (expected, 0)
        connection.close()
    assert_rss_returns(locked, baseline)


def test_open_routes_take_no_budget_where_there_is_no_key():
    with Server(*SMALL_BUDGET) as unlocked:
        head = request("/health", f"Content-Length: {2 << 20}", method="GET")
        held = [withhold_the_last_byte(unlocked, head, 2 << 20) for _ in range(17)]
        with RawConnection(unlocked) as honest:
            honest.send_request("POST", "/tokenize", LARGE)
            status, _, reply = honest.read_reply()
            assert status == 400 and b"the context limit" in reply
        for connection in held:
            connection.close()


def test_the_budget_is_one_for_all_bodies(locked):
    head = request("/tokenize", f"Content-Length: {3 << 20}", KEY)
    with withhold_the_last_byte(locked, head, 3 << 20) as first:
        time.sleep(0.5)  # until it is charged: two at once may both find no room
        with withhold_the_last_byte(locked, head, 3 << 20) as second:
            status, headers, body = second.read_reply()
        assert not is_answered(first)
        assert status == 429 and b"server.max_buffered_bytes = 4194304" in body
        assert "retry-after" in headers


@pytest.fixture(scope="module")
def small():
    with Server("--set", "http.max_body_bytes=512M") as running:
        running.complete("x", max_tokens=1)  # what starts at first use is there
        yield running


def assert_out_of_memory(reply):
    status, headers, body = reply
    assert status == 503, body
    assert "no memory for this request" in json.loads(body)["error"]["message"]
    assert "retry-after" in headers


def test_a_declared_body_without_memory_is_503(small):
    with spare_memory(small, 24 << 20), RawConnection(small) as connection:
        connection.send(request("/tokenize", f"Content-Length: {400 << 20}") + b"{")
        assert_out_of_memory(connection.read_reply())
        small.complete("x", max_tokens=1)


def test_a_chunked_body_without_memory_is_503(small):
    with spare_memory(small, 24 << 20), RawConnection(small) as connection:
        connection.send(request("/tokenize", CHUNKED))
        for _ in range(300):
            if is_answered(connection):
                break
            connection.send(b"%x\r\n" % len(PIECE) + PIECE + b"\r\n")
        assert_out_of_memory(connection.read_reply())
        small.complete("x", max_tokens=1)


def test_json_without_memory_is_503(small):
    body = b'{"tokens": [' + b"1," * 3_000_000 + b"1]}"
    with spare_memory(small, 40 << 20), RawConnection(small) as connection:
        connection.send_request("POST", "/detokenize", body)
        assert_out_of_memory(connection.read_reply())
        small.complete("x", max_tokens=1)


def test_a_request_without_memory_ends_alone(small):
    """Whatever it was doing: the same request with ever more memory, until there is enough."""
    body = b'{"tokens": [' + b"400," * 3_900_000 + b"1]}"
    statuses = []
    for spare in range(4, 800, 24):
        with spare_memory(small, spare << 20), RawConnection(small) as connection:
            connection.send_request("POST", "/detokenize", body)
            statuses.append(connection.read_reply()[0])
        assert statuses[-1] in (200, 503)
        small.complete("x", max_tokens=1)
        if statuses[-3:] == [200] * 3:
            break
    assert statuses[0] == 503 and statuses[-1] == 200, statuses


def take_all_memory(server):
    """Heads that do not end, the large ones first: what is left in between goes to the small."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    held = []
    for num_bytes, number in ((60_000, 4000), (15_000, 1500), (3000, 1500), (100, 1000)):
        for _ in range(number):
            try:
                connection = RawConnection(server)
                held.append(connection)
                connection.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * num_bytes)
            except OSError:
                pass  # dropped, which is the point
    return held


def test_connections_without_memory_end_alone():
    """Asio throws wherever it is: in a connection, in what accepts the next one, in a handler."""
    flags = ["--set", "http.header_timeout_s=60", "--set", "http.max_connections=9000"]
    with Server(*flags) as server:
        server.complete("x", max_tokens=1)
        with spare_memory(server, 0):
            held = take_all_memory(server)
            time.sleep(0.5)
            for connection in held:
                connection.close()
            assert server.process.poll() is None, server.read_log()
        assert len(held) > 7000
        server.complete("x", max_tokens=1)
