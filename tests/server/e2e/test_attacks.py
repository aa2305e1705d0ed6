"""Bytes no honest client sends. Each gets a clear answer or a closed door, and the server lives."""

import json
import select
import time

import pytest

from raw_http import RawConnection
from server_process import Server


POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n"


def answer_to(server, data):
    with RawConnection(server) as connection:
        connection.send(data)
        return connection.read_reply()


def post_bytes(server, body, headers=("Content-Type: application/json",), path="/v1/completions"):
    with RawConnection(server) as connection:
        connection.send_request("POST", path, body, headers)
        return connection.read_reply()


BAD_JSON = [
    b"{", b"", b"null", b"[]", b'{"prompt": "x"', b'{"prompt": "x"}}', b"\x00", b"{'prompt': 'x'}",
    b'{"prompt": "\xff"}', b'{"prompt": "\xc3"}', b'{"prompt": "\\ud800"}', b'{"prompt": NaN}',
    b'{"temperature": Infinity, "prompt": "x"}', b'{"temperature": 1e999, "prompt": "x"}',
    b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[" * 10_000_000,
    b'{"prompt": [' + b"1," * 6_000_000 + b"1]}",
    b'{"prompt": "x", ' + b", ".join(b'"k%d": 1' % i for i in range(5000)) + b"}",
]


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_json(server, body):
    status, _, reply = post_bytes(server, body)
    assert status == 400, reply
    assert json.loads(reply)["error"]["message"]


def test_tolerated_json(server):
    for body in (b'\xef\xbb\xbf{"prompt": "x", "max_tokens": 1}',
                 b'{"prompt": "y", "prompt": "x", "max_tokens": 1}',
                 b'{"prompt": "a\\u0000b", "max_tokens": 1}'):
        assert post_bytes(server, body)[0] == 200


def test_content_types(server):
    body = b'{"prompt": "x", "max_tokens": 1}'
    assert post_bytes(server, body, [])[0] == 200
    assert post_bytes(server, body, ["Content-Type: Application/JSON; charset=utf-8"])[0] == 200
    assert post_bytes(server, body, ["Content-Type: text/plain"])[0] == 415


def test_body_one_byte_over_the_limit(server):
    status, headers, reply = answer_to(
        server, POST + b"Content-Length: %d\r\n\r\n" % ((64 << 20) + 1))
    assert status == 413 and headers["connection"] == "close"
    assert "67108864" in json.loads(reply)["error"]["message"]


def test_whole_oversize_body_still_gets_its_answer(server):
    """A client that sends all before it reads must not find a reset connection."""
    status, _, _ = post_bytes(server, b" " * ((64 << 20) + 1))
    assert status == 413


def test_oversize_chunked_body(server):
    with RawConnection(server) as connection:
        connection.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"%x\r\n" % (1 << 20) + b" " * (1 << 20) + b"\r\n"
        for _ in range(65):
            connection.send(piece)
        assert connection.read_reply()[0] == 413


def test_body_at_the_limit_is_read(server):
    body = b'{"prompt": "x", "max_tokens": 1}'
    status, _, _ = post_bytes(server, body + b" " * ((64 << 20) - len(body)))
    assert status == 200


def test_expect_continue(server):
    body = b'{"prompt": "x", "max_tokens": 1}'
    with RawConnection(server) as connection:
        connection.send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert b"100 Continue" in connection.read_until(b"\r\n\r\n")
        connection.send(body)
        assert connection.read_reply()[0] == 200


BAD_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    POST + b"Content-Length: abc\r\n\r\n",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
]


@pytest.mark.parametrize("data", BAD_HTTP, ids=range(len(BAD_HTTP)))
def test_bad_http(server, data):
    with RawConnection(server) as connection:
        connection.send(data)
        status, _, _ = connection.read_reply()
        assert status in (400, 413), status
        assert connection.is_closed_by_peer()


def test_large_headers(server):
    status, _, _ = answer_to(server, GET_HEALTH + b"X: " + b"a" * 100_000 + b"\r\n\r\n")
    assert status == 431
    many = b"".join(b"X-%d: a\r\n" % i for i in range(10_000))
    assert answer_to(server, GET_HEALTH + many + b"\r\n")[0] == 431


@pytest.mark.parametrize("part, start", [
    ("request header", GET_HEALTH + b"X: "),
    ("request body", POST + b"Content-Length: 100\r\n\r\n{"),
])
def test_slow_request_is_told_and_cut_off(server, part, start):
    """A byte now and then does not keep it alive."""
    with RawConnection(server) as connection:
        connection.send(start)
        begin = time.monotonic()
        while not select.select([connection.socket], [], [], 0.1)[0]:
            connection.send("y")
            assert time.monotonic() - begin < 10
        status, _, body = connection.read_reply()
        assert status == 408
        assert part in body.decode() and "within 2 s" in body.decode()
        assert connection.is_closed_by_peer()


def test_content_length_lies(server):
    body = b'{"prompt": "x", "max_tokens": 1}'
    head = POST + b"Content-Length: %d\r\n\r\n"
    with RawConnection(server) as connection:  # promises more than it sends, and leaves
        connection.send(head % (len(body) + 10) + body)
    with RawConnection(server) as connection:  # the rest is read as a second request
        connection.send(head % len(body) + body + b"garbage\r\n\r\n")
        assert connection.read_reply()[0] == 200
        assert connection.read_reply()[0] == 400


def test_pipelining_answers_in_order(server):
    with RawConnection(server) as connection:
        for i in range(20):
            connection.send_completion(request_id=f"r{i}", max_tokens=1)
            connection.send_request("GET", "/health")
        for i in range(20):
            status, headers, _ = connection.read_reply()
            assert (status, headers["x-request-id"]) == (200, f"r{i}")
            assert connection.read_reply()[0] == 200


def test_errors_keep_the_connection(server):
    with RawConnection(server) as connection:
        for _ in range(3):
            connection.send_completion(n=2)
            assert connection.read_reply()[0] == 400
            connection.send_request("GET", "/nope")
            assert connection.read_reply()[0] == 404
            connection.send_completion()
            assert connection.read_reply()[0] == 200


def test_http_1_0(server):
    body = b'{"prompt": "x", "max_tokens": 2, "stream": true}'
    with RawConnection(server) as connection:
        header = b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.send(header + body)
        stream = connection.read_until(b"[DONE]\n\n")
        assert b"chunked" not in stream and stream.endswith(b"[DONE]\n\n")
        assert connection.is_closed_by_peer()


def test_log_lines_cannot_be_forged(server):
    post_bytes(server, json.dumps({"prompt": "x", "model": "m\n2026 I forged"}).encode())
    server.wait_for_log("2026 I forged")
    assert "\n2026 I forged" not in server.read_log()


def assert_not_quoted(server, body, secret):
    status, headers, reply = post_bytes(server, body)
    assert status == 400 and json.loads(reply)["error"]["message"]
    assert secret not in reply.decode()
    deadline = time.monotonic() + 10
    while headers["x-request-id"] not in server.read_log():  # the refusal has its line
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert secret not in server.read_log()


@pytest.mark.parametrize("body", [
    '{"prompt": "SECRET"', '{"prompt": SECRET}', '{"prompt": "SECRET\\x"}', '"SECRET',
    '{"prompt": "SECRET\n"}', '{"SECRET": 1, }', '{"prompt": "\\ud800SECRET"}',
    '{"prompt": [1, "SECRET"]}', '{"prompt": {"SECRET": 1}}', '{"prompt": ["SECRET", 1]}',
    '{"prompt": "x", "stop": {"a": "SECRET"}}', '{"prompt": "x", "max_tokens": "SECRET"}',
    '{"prompt": "x", "temperature": ["SECRET"]}', '{"prompt": "x", "stop": [1, "SECRET"]}',
])
def test_errors_do_not_quote_the_prompt(server, body):
    """Neither to the log, which is not the client's, nor back."""
    assert_not_quoted(server, body.replace("SECRET", "wombat-7261").encode(), "wombat-7261")


def test_a_number_beyond_double_is_not_quoted(server):
    assert_not_quoted(server, b'{"prompt": 31415926e999}', "31415926")
