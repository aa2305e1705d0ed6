"""With TLS too, connections that say nothing lock nobody out, and streams are left alone."""

import contextlib
import ssl

import grpc
import pytest

from server_process import wait_until
from test_connections import LIMITS, connections, is_closed
from test_tls import TlsConnection
from test_tls_grpc import credentials, generate
from tls_files import HalfTls, TlsServer, client_context

# No deadline of a handshake or of a silence helps.
PATIENT = ["--set", "http.header_timeout_s=600", "--set", "http.idle_timeout_s=600"]


def check_http(server, authority, _):
    with TlsConnection(server, client_context(authority)) as connection:
        connection.send_request("GET", "/health")
        assert connection.read_reply()[0] == 200


def check_grpc(server, authority, stubs):
    with grpc.secure_channel(server.grpc_address, credentials(authority)) as channel:
        assert generate(channel, stubs)


CHECKS = {"HTTP": check_http, "gRPC": check_grpc}


def begin_of_a_hello(authority):
    outgoing = ssl.MemoryBIO()
    tls = client_context(authority).wrap_bio(ssl.MemoryBIO(), outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()[:100]


@pytest.mark.parametrize("port", ["HTTP", "gRPC"])
@pytest.mark.parametrize("says_hello", [False, True])
def test_handshakes_that_do_not_end_make_room(authority, pair, stubs, port, says_hello):
    with TlsServer(*pair.flags(), *LIMITS, *PATIENT) as server:
        CHECKS[port](server, authority, stubs)
        before = server.num_descriptors()
        with connections(server, port, 100) as held:
            if says_hello:
                for connection in held[-8:]:
                    connection.sendall(begin_of_a_hello(authority))
            wait_until(lambda: server.num_descriptors() <= before + 10)
            for _ in range(3):
                CHECKS[port](server, authority, stubs)
            assert is_closed(held[-8])
        wait_until(lambda: server.num_descriptors() <= before)


def test_failed_handshakes_keep_no_place(authority, pair):
    """Each may read its alert for five seconds; the limit holds meanwhile, and others come in."""
    with TlsServer(*pair.flags(), *LIMITS, *PATIENT) as server:
        check_http(server, authority, None)
        before = server.num_descriptors()
        with connections(server, "HTTP", 60) as held:
            for connection in held:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wait_until(lambda: server.num_descriptors() <= before + 10, timeout_s=3)
            check_http(server, authority, None)


def test_an_idle_connection_makes_room_after_its_handshake(authority, pair):
    with TlsServer(*pair.flags(), *LIMITS, *PATIENT) as server:
        idle = [HalfTls(server.port, client_context(authority)) for _ in range(8)]
        for _ in range(3):
            check_http(server, authority, None)
        assert is_closed(idle[0].socket) and not is_closed(idle[-1].socket, timeout_s=0.1)
        for connection in idle:
            connection.close()


def test_a_stream_is_never_closed_for_a_handshake(authority, pair):
    with TlsServer(*pair.flags(), "--set", "http.max_connections=1", *PATIENT) as server:
        with TlsConnection(server, client_context(authority)) as stream:
            stream.send_completion(stream=True, max_tokens=20000, ignore_eos=True)
            assert b"data: " in stream.read_until(b"data: ")
            with connections(server, "HTTP", 20) as refused:
                assert all(is_closed(connection) for connection in refused)
            server.wait_for_log("http.max_connections = 1 are busy")
            assert b"data: " in stream.read_until(b"data: ")
