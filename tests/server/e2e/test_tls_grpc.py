"""TLS on the gRPC port."""

import socket
import ssl
import time

import grpc
import pytest
import requests

from process_memory import assert_rss_returns, rss_bytes
from server_process import run_in_threads
from tls_files import HalfTls, TlsServer, client_context

TOO_OLD = ssl.TLSVersion.TLSv1_1


def credentials(authority, pair=None):
    return grpc.ssl_channel_credentials(
        root_certificates=authority.certificate.read_bytes(),
        private_key=pair.key.read_bytes() if pair else None,
        certificate_chain=pair.certificate.read_bytes() if pair else None)


def h2_context(authority, pair=None):
    context = client_context(authority, pair)
    context.set_alpn_protocols(["h2"])
    return context


def generate(channel, stubs, max_tokens=12):
    m, services = stubs
    request = m.GenerateRequest(text="The ls command", sampling=m.SamplingParams(temperature=0),
                                stop=m.StopRules(max_tokens=max_tokens))
    events = services.InferenceStub(channel).Generate(request, timeout=60)
    return "".join(event.chunk.text for event in events)


def assert_refused(channel, stubs):
    with channel, pytest.raises(grpc.RpcError) as caught:
        generate(channel, stubs)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def secure(authority, pair):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        with TlsServer(*pair.flags(), "--set", "grpc.max_message_bytes=4194304",
                       "--set", "http.max_body_bytes=4M",
                       "--set", "server.max_buffered_bytes=4M") as running:
            yield running


@pytest.fixture(scope="module")
def mutual(authority, pair):
    with TlsServer(*pair.flags(), "--ssl-ca-certs", str(authority.certificate)) as running:
        yield running


def test_streams_as_http_does(secure, authority, stubs):
    with grpc.secure_channel(secure.grpc_address, credentials(authority)) as channel:
        whole = secure.complete("The ls command", max_tokens=12)["choices"][0]["text"]
        assert generate(channel, stubs) == whole


def test_full_messages_are_counted_right(secure, authority, stubs):
    """Of all that messages may take together, ciphertext takes little more than the message."""
    m, services = stubs
    with grpc.secure_channel(secure.grpc_address, credentials(authority)) as channel:
        stub = services.InferenceStub(channel)
        text = "a " * (2040 << 10)  # 0.4 % below the bound
        for _ in range(4):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Tokenize(m.TokenizeRequest(text=text), timeout=60)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # was received whole
            assert "can hold" in caught.value.details()


def test_the_protocol_is_http_2(secure, authority):
    tls = HalfTls(secure.ports["gRPC"], h2_context(authority))
    assert tls.tls.selected_alpn_protocol() == "h2"
    tls.close()


def test_tls_1_1_is_refused(secure):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = TOO_OLD
    with pytest.raises((ssl.SSLError, ConnectionError)):
        HalfTls(secure.ports["gRPC"], context)


def test_plain_grpc_is_refused_without_a_log_line(secure, authority, stubs):
    before = secure.read_log()
    assert_refused(grpc.insecure_channel(secure.grpc_address), stubs)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", secure.ports["gRPC"]), 20) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 100)
            try:
                while connection.recv(1000):
                    pass
            except ConnectionError:
                pass
    assert secure.read_log() == before
    with grpc.secure_channel(secure.grpc_address, credentials(authority)) as channel:
        generate(channel, stubs)


def test_a_silent_handshake_is_cut_off(secure):
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", secure.ports["gRPC"]), 30) as connection:
        assert connection.recv(100) == b""
    assert 5 < time.monotonic() - begin < 25


def test_a_client_of_ours_gets_in(mutual, authority, stubs):
    channel_credentials = credentials(authority, authority.issue("client"))
    with grpc.secure_channel(mutual.grpc_address, channel_credentials) as channel:
        assert generate(channel, stubs)


def test_a_client_without_a_certificate_is_refused(mutual, authority, stubs):
    assert_refused(grpc.secure_channel(mutual.grpc_address, credentials(authority)), stubs)


def test_a_client_of_another_authority_is_refused(mutual, authority, foreign, stubs):
    theirs = credentials(authority, foreign.issue("client"))
    assert_refused(grpc.secure_channel(mutual.grpc_address, theirs), stubs)


def test_two_hundred_handshakes_at_once_do_not_stop_a_stream(secure, authority, stubs):
    context = h2_context(authority)

    def work(index):
        if index > 0:
            return HalfTls(secure.ports["gRPC"], context).close()
        with grpc.secure_channel(secure.grpc_address, credentials(authority)) as channel:
            return generate(channel, stubs, max_tokens=400)

    assert run_in_threads(work, range(201))[0]


def test_memory_returns_after_a_thousand_handshakes(secure, authority):
    context = h2_context(authority)

    def connect_often(_):
        for _ in range(100):
            HalfTls(secure.ports["gRPC"], context).close()

    run_in_threads(connect_often, range(5))
    baseline = rss_bytes(secure)
    run_in_threads(connect_often, range(10))
    assert requests.get(secure.url + "/health", timeout=30).status_code == 200
    assert_rss_returns(secure, baseline)
