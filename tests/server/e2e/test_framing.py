"""Heads and frames that two servers could read in two ways: 400, and the connection closes."""

import json

import pytest

from raw_http import RawConnection

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"  # a body that must never run as a request
CHUNKED = b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n"


def assert_refused(server, data, header):
    with RawConnection(server) as connection:
        connection.send(data)
        status, headers, body = connection.read_reply()
        assert status == 400, body
        assert header in json.loads(body)["error"]["message"]
        assert headers.get("connection", "close") == "close"
        assert connection.read_until(b"never") == b"", "something behind the head ran as a request"
        assert connection.is_closed_by_peer()
    assert "/hidden" not in server.read_log()


def head(*lines, target="/v1/completions", method="POST", version="1.1"):
    return "\r\n".join([f"{method} {target} HTTP/{version}", *lines, "", ""]).encode()


@pytest.mark.parametrize("coding", ["xchunked", "gzip", "identity", "chunked, identity",
                                    "gzip, chunked", "chunked, chunked", "chunked;q=1", "",
                                    "\"chunked\"", "\x0bchunked"])
def test_transfer_encodings_but_chunked_are_refused(server, coding):
    data = head("Host: x", f"Transfer-Encoding: {coding}")
    with RawConnection(server) as connection:
        connection.send(data + CHUNKED)
        assert connection.read_reply()[0] == 400
        assert connection.read_until(b"never") == b""
    if coding.isprintable():
        assert_refused(server, data + CHUNKED, "Transfer-Encoding")


@pytest.mark.parametrize("lines", [
    ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ["Transfer-Encoding: identity", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: gzip", f"Content-Length: {len(CHUNKED)}"],
    [f"Content-Length: {len(CHUNKED)}", "Transfer-Encoding: gzip"],
    [f"Content-Length: {len(CHUNKED)}", "Transfer-Encoding: chunked"],
])
def test_transfer_encoding_stands_alone(server, lines):
    assert_refused(server, head("Host: x", *lines) + CHUNKED, "Transfer-Encoding")


@pytest.mark.parametrize("target", ["/v1/models", "/health"])
@pytest.mark.parametrize("name, values", [("Authorization", ["Bearer a", "Bearer b"]),
                                          ("x-api-key", ["a", "a"])])
def test_a_key_stands_in_a_head_once(server, target, name, values):
    lines = [f"{spelling}: {value}" for spelling, value in zip((name, name.upper()), values)]
    data = head("Host: x", *lines, target=target, method="GET")
    assert_refused(server, data + HIDDEN, f"{name} must not be repeated")


def test_content_length_behind_transfer_encoding(server):
    lines = ["Transfer-Encoding: chunked", f"Content-Length: {len(CHUNKED)}"]
    assert_refused(server, head("Host: x", *lines) + CHUNKED, "Content-Length")


def test_transfer_encoding_does_not_exist_in_http_1_0(server):
    data = head("Host: x", "Transfer-Encoding: chunked", version="1.0")
    assert_refused(server, data + CHUNKED, "Transfer-Encoding")


@pytest.mark.parametrize("lines", [
    ["Content-Length: 0", "Content-Length: 0"],
    ["Content-Length: 0", f"Content-Length: {len(HIDDEN)}"],
    ["Content-Length: 0, 0"], [f"Content-Length: 0, {len(HIDDEN)}"], ["Content-Length: +0"],
    ["Content-Length: 0x10"], ["Content-Length: "], ["Content-Length: 0,"],
])
def test_content_length_is_one_number(server, lines):
    assert_refused(server, head("Host: x", *lines) + HIDDEN, "Content-Length")


@pytest.mark.parametrize("lines", [[], ["Host: x", "Host: x"], ["Host: x", "Host: y"],
                                   ["Host: x y"], ["Host: x, y"], ["Host: user@x"],
                                   ["Host: http://x"]])
def test_host_is_one_name(server, lines):
    assert_refused(server, head(*lines, target="/health", method="GET") + HIDDEN, "Host")


@pytest.mark.parametrize("line", ["Host:", "Host: x", "Host: x.example:8000", "Host: [::1]:80",
                                  "hOsT: 127.0.0.1", "Host: a_b"])
def test_honest_hosts_are_served(server, line):
    with RawConnection(server) as connection:
        connection.send(head(line, target="/health", method="GET"))
        assert connection.read_reply()[0] == 200


def test_http_1_0_needs_no_host(server):
    with RawConnection(server) as connection:
        connection.send(head(target="/health", method="GET", version="1.0"))
        assert connection.read_reply()[0] == 200


@pytest.mark.parametrize("coding", ["chunked", "Chunked", " chunked "])
def test_chunked_bodies_are_served(server, coding):
    body = b'{"prompt": "x", "max_tokens": 1}'
    with RawConnection(server) as connection:
        for _ in range(2):
            connection.send(head("Host: x", f"Transfer-Encoding: {coding}"))
            for piece in (body[:5], body[5:]):
                connection.send(b"%X;name=\"va;lue\"\r\n" % len(piece) + piece + b"\r\n")
            connection.send(b"000;last\r\nX-Trailer: a\r\n\r\n")
            assert connection.read_reply()[0] == 200


@pytest.mark.parametrize("trailer", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_trailers_cannot_frame(server, trailer):
    data = head("Host: x", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n"
    assert_refused(server, data + trailer.encode() + b"\r\n\r\n" + HIDDEN, trailer.split(":")[0])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("framing, body", [(f"Content-Length: {len(HIDDEN)}", HIDDEN),
                                           ("Transfer-Encoding: chunked", CHUNKED)])
def test_a_body_on_get_is_refused_before_it_is_read(server, method, framing, body):
    with RawConnection(server) as connection:
        connection.send(head("Host: x", framing, target="/health", method=method))
        status, headers, reply = connection.read_reply(has_body=method != "HEAD")
        assert (status, headers["connection"]) == (400, "close")
        assert method == "HEAD" or "takes no body" in json.loads(reply)["error"]["message"]
        connection.send(body)
        assert connection.read_until(b"never") == b""
    assert "/hidden" not in server.read_log()


@pytest.mark.parametrize("target, status", [
    ("http://x/health", 200), ("HTTP://example.org:8000/health?a=b", 200),
    ("https://x/v1/models/demo", 200), ("http://x/health/", 404), ("http://x", 404),
    ("http://x?/health", 404), ("/http://x/health", 404), ("*", 404), ("ftp://x/health", 404),
])
def test_absolute_targets_are_understood(server, target, status):
    """What a proxy is sent, and every server must take (RFC 9112, section 3.2.2)."""
    with RawConnection(server) as connection:
        for _ in range(2):
            connection.send(head("Host: other", target=target, method="GET"))
            assert connection.read_reply()[0] == status
