"""TLS on the HTTP port: who gets in, who does not, and how connections begin and end."""

import json
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests

from process_memory import assert_rss_returns, rss_bytes
from raw_http import RawConnection
from server_process import BINARY, ROOT, run_in_threads
from tls_files import HalfTls, TlsServer, client_context, openssl

ENDLESS = {"max_tokens": 30000, "ignore_eos": True}


class TlsConnection(RawConnection):
    def __init__(self, server, context, **options):
        self.socket = HalfTls(server.port, context, **options)
        self.pending = b""


@pytest.fixture(scope="module")
def secure(authority, pair):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        with TlsServer(*pair.flags(), "--set", "http.header_timeout_s=2", "--set",
                       "http.write_timeout_s=1") as running:
            yield running


@pytest.fixture(scope="module")
def mutual(authority, pair):
    with TlsServer(*pair.flags(), "--ssl-ca-certs", str(authority.certificate),
                   "--admin-port", "0") as running:
        yield running


def stream_events(server, **fields):
    body = {"prompt": "The ls command", "temperature": 0, "stream": True} | fields
    with server.post("/v1/completions", body, stream=True) as reply:
        assert reply.status_code == 200
        return [line for line in reply.iter_lines() if line.startswith(b"data: ")]


def test_answers_and_streams_as_without_tls(server, secure):
    assert secure.complete("The ls command")["choices"] == server.complete(
        "The ls command")["choices"]
    events = stream_events(secure, max_tokens=50, ignore_eos=True)
    assert events[-1] == b"data: [DONE]" and len(events) > 2
    assert "try: curl https://127.0.0.1" in secure.read_log()
    assert f"HTTP on 127.0.0.1:{secure.port} (https)" in secure.read_log()
    assert secure.post("/tokenize", {"prompt": "x" * (4 << 20)}).status_code in (200, 400)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_keep_connections_alive(secure, authority, version):
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with TlsConnection(secure, context) as connection:
        assert connection.socket.tls.selected_alpn_protocol() == "http/1.1"
        for _ in range(3):
            connection.send_request("GET", "/health")
            assert connection.read_reply()[0] == 200


def test_an_event_is_one_record(secure, authority):
    """Length, text and end of a chunk in records of their own would be three packets."""
    with TlsConnection(secure, client_context(authority)) as connection:
        connection.send_completion(stream=True, max_tokens=50, ignore_eos=True)
        pieces = []
        while not b"".join(pieces).endswith(b"\r\n0\r\n\r\n"):
            pieces.append(connection.socket.recv(65536))  # one record at most
        assert all(piece.endswith(b"\r\n") for piece in pieces)
        assert not any(piece == b"\r\n" for piece in pieces)


def test_tls_1_1_is_refused(secure):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="(?i)alert.protocol.version"):
        HalfTls(secure.port, context)


def test_a_client_of_http_2_alone_is_refused(secure, authority):
    context = client_context(authority)
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        HalfTls(secure.port, context)


def test_plain_http_is_closed_without_an_answer_or_a_log_line(secure):
    before = secure.read_log()

    def ask(_):
        with RawConnection(secure) as connection:
            connection.send_request("GET", "/health")
            try:
                assert not connection.read_until(b"\r\n\r\n").startswith(b"HTTP")
            except ConnectionError:
                pass
            assert connection.is_closed_by_peer()

    run_in_threads(ask, range(50))
    assert secure.read_log() == before
    assert secure.complete("x", max_tokens=1)


@pytest.mark.parametrize("is_trickling", [False, True])
def test_a_slow_handshake_is_cut_off(secure, authority, is_trickling):
    outgoing = ssl.MemoryBIO()
    tls = client_context(authority).wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", secure.port), timeout=0.1) as connection:
        received = None
        while received is None:
            assert time.monotonic() - begin < 15
            try:
                if is_trickling and hello:
                    connection.sendall(hello[:1])
                    hello = hello[1:]
                received = connection.recv(100)
            except TimeoutError:
                pass
            except ConnectionError:
                received = b""
        assert received == b""
    assert time.monotonic() - begin > 1.5  # header_timeout_s = 2


def test_a_close_notify_is_a_half_close(secure, authority):
    with TlsConnection(secure, client_context(authority)) as connection:
        connection.send_completion(request_id="tls-half", **ENDLESS)
        time.sleep(0.3)
        connection.socket.end_sending()
        status, headers, body = connection.read_reply()
        assert (status, headers["connection"]) == (499, "close")
        assert "closed its sending side" in json.loads(body)["error"]["message"]
        assert connection.socket.recv(100) == b""
    secure.wait_for_log("id=tls-half status=499")


def test_a_half_close_does_not_stop_what_answers_at_once(secure, authority):
    with TlsConnection(secure, client_context(authority)) as connection:
        connection.send_request("POST", "/tokenize", b'{"prompt": "The ls command"}')
        connection.socket.end_sending()
        assert connection.read_reply()[0] == 200


def test_who_leaves_without_close_notify_is_noticed(secure, authority):
    connection = TlsConnection(secure, client_context(authority))
    connection.send_completion(stream=True, request_id="tls-left", **ENDLESS)
    connection.read_until(b"data: ")
    connection.close()
    secure.wait_for_log("id=tls-left status=499")


def test_a_last_answer_ends_with_close_notify(secure, authority):
    with TlsConnection(secure, client_context(authority)) as connection:
        connection.send_request("GET", "/health", headers=["Connection: close"])
        assert connection.read_reply()[0] == 200
        assert connection.socket.recv(100) == b""  # SSLEOFError: cut off


def test_a_slow_header_is_answered(secure, authority):
    with TlsConnection(secure, client_context(authority)) as connection:
        connection.send(b"GET /health HTTP/1.1\r\n")
        assert connection.read_reply()[0] == 408


def test_a_reader_that_stops_is_cut_off_and_a_slow_one_is_not(secure, authority):
    tokens = secure.post("/tokenize", {"prompt": " directories"}).json()["tokens"]
    body = json.dumps({"tokens": tokens * (700_000 // len(tokens))}).encode()
    lengths = []
    for pause_s in (0.05, 4):
        with TlsConnection(secure, client_context(authority), receive_buffer=32 << 10) as reader:
            reader.send_request("POST", "/detokenize", body)
            head = reader.read_until(b"\r\n\r\n").lower()
            received = len(reader.pending)
            try:
                time.sleep(pause_s)
                while piece := reader.socket.recv(1 << 20):
                    received += len(piece)
                    if received == int(head.split(b"content-length: ")[1].split(b"\r\n")[0]):
                        break
                    time.sleep(min(pause_s, 0.01))
            except (ConnectionError, ssl.SSLError):
                pass
            lengths.append(received)
    assert lengths[0] > 4 << 20 and lengths[1] < lengths[0]


def test_a_client_of_ours_gets_in(mutual, authority):
    context = client_context(authority, authority.issue("client"))
    with TlsConnection(mutual, context) as connection:
        connection.send_request("GET", "/health")
        assert connection.read_reply()[0] == 200


def test_a_client_with_a_certificate_resumes_its_session(mutual, authority):
    context = client_context(authority, authority.issue("client"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the ticket is there with the handshake
    first = HalfTls(mutual.port, context)
    second = HalfTls(mutual.port, context, session=first.tls.session)
    assert second.tls.session_reused
    for tls in (first, second):
        tls.close()


def refusal(server, context):
    """What a client learns; its TLS 1.3 handshake is over before its certificate is looked at."""
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
        with TlsConnection(server, context) as connection:
            connection.send_request("GET", "/health")
            status = connection.read_reply()[0]
            assert status == 0, "let in"
            raise ConnectionError("closed")
    return str(caught.value).lower().replace("_", " ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate_is_refused_and_told(mutual, authority, version):
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version
    told = refusal(mutual, context)
    assert "certificate required" in told or "handshake failure" in told, told


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_another_authority_is_refused_and_told(mutual, authority, foreign, version):
    context = client_context(authority, foreign.issue("client"))
    context.minimum_version = context.maximum_version = version
    assert "unknown ca" in refusal(mutual, context)


def test_probes_need_no_certificate(mutual):
    port = mutual.read_log().split("admin on 127.0.0.1:")[1].split()[0]
    assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200


def test_two_hundred_handshakes_at_once_do_not_stop_a_stream(secure, authority):
    tokens = []
    streaming = threading.Thread(
        target=lambda: tokens.extend(stream_events(secure, max_tokens=400, ignore_eos=True)))
    streaming.start()
    context = client_context(authority)

    def ask(_):
        with TlsConnection(secure, context) as connection:
            connection.send_request("GET", "/health")
            return connection.read_reply()[0]

    assert run_in_threads(ask, range(200)) == [200] * 200
    streaming.join()
    assert tokens[-1] == b"data: [DONE]"


def test_memory_returns_after_a_thousand_handshakes(secure, authority):
    context = client_context(authority)

    def ask_often(_):
        for _ in range(100):
            with TlsConnection(secure, context) as connection:
                connection.send_request("GET", "/health")
                assert connection.read_reply()[0] == 200

    run_in_threads(ask_often, range(5))
    baseline = rss_bytes(secure)
    run_in_threads(ask_often, range(10))
    assert_rss_returns(secure, baseline)


def encrypted(pair):
    path = pair.key.with_suffix(".encrypted")
    openssl("ec", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", path)
    return path


def half(path):
    copy = path.with_suffix(".half")
    copy.write_bytes(path.read_bytes()[:-60])
    return copy


RSA_KEY = ("-newkey", "rsa:2048", "-nodes")
# Case: what stands in place of (certificate, key, CAs), the key that is named, and the reason.
WRONG_STARTS = {
    "key alone": (lambda a, p: (None, p.key, None), "ssl_keyfile", "needs server.ssl_certfile"),
    "certificate alone": (lambda a, p: (p.certificate, None, None), "ssl_certfile",
                          "needs server.ssl_keyfile"),
    "CAs alone": (lambda a, p: (None, None, a.certificate), "ssl_ca_certs",
                  "needs server.ssl_certfile"),
    "no such certificate": (lambda a, p: ("/nowhere.pem", p.key, None), "ssl_certfile",
                            "No such file"),
    "a folder": (lambda a, p: (p.certificate, a.folder, None), "ssl_keyfile", "is a folder"),
    "no end": (lambda a, p: ("/dev/zero", p.key, None), "ssl_certfile", "a device, not a file"),
    "key for certificate": (lambda a, p: (p.key, p.key, None), "ssl_certfile",
                            "is not a certificate"),
    "certificate for key": (lambda a, p: (p.certificate, p.certificate, None), "ssl_keyfile",
                            "is not a private key"),
    "half a certificate": (lambda a, p: (half(p.certificate), p.key, None), "ssl_certfile",
                           "is not a certificate"),
    "key of another": (lambda a, p: (p.certificate, a.key, None), "ssl_keyfile",
                       "does not belong to server.ssl_certfile"),
    "key of another kind": (lambda a, p: (p.certificate, a.issue("rsa", RSA_KEY).key, None),
                            "ssl_keyfile", "does not belong to server.ssl_certfile"),
    "encrypted key": (lambda a, p: (p.certificate, encrypted(p), None), "ssl_keyfile",
                      "is encrypted"),
    "key for CAs": (lambda a, p: (p.certificate, p.key, p.key), "ssl_ca_certs",
                    "is not a list of certificates"),
    "half of the CAs": (lambda a, p: (p.certificate, p.key, half(a.certificate)), "ssl_ca_certs",
                        "is not a list of certificates"),
    "no such CAs": (lambda a, p: (p.certificate, p.key, "/nowhere.pem"), "ssl_ca_certs",
                    "No such file"),
}


@pytest.mark.parametrize("case", WRONG_STARTS)
def test_wrong_files_refuse_to_start(authority, pair, case):
    make, key, reason = WRONG_STARTS[case]
    files = make(authority, pair)
    flags = [part for name, file in zip(("certfile", "keyfile", "ca-certs"), files) if file
             for part in (f"--ssl-{name}", str(file))]
    named = files[("ssl_certfile", "ssl_keyfile", "ssl_ca_certs").index(key)]
    done = subprocess.run([BINARY, "--model", "models/demo", *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)
    errors = [line for line in done.stderr.splitlines() if " E " in line]
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    assert f"server.{key} = {named}: " in errors[0] and reason in errors[0]
