"""Connections that say nothing lock nobody out; those that work are left alone."""

import contextlib
import re
import socket
import time

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from process_memory import assert_rss_returns, rss_bytes
from raw_http import RawConnection
from server_process import Server, wait_until

LIMITS = ["--set", "http.max_connections=8", "--set", "grpc.max_connections=8"]


def address(server, port):
    if port == "HTTP":
        return "127.0.0.1", server.port
    host, number = server.grpc_address.split(":")
    return host, int(number)


@contextlib.contextmanager
def connections(server, port, number, source="127.0.0.1"):
    held = [socket.create_connection(address(server, port), timeout=10,
                                     source_address=(source, 0)) for _ in range(number)]
    try:
        yield held
    finally:
        for connection in held:
            connection.close()


def is_closed(connection, timeout_s=5):
    connection.settimeout(timeout_s)
    try:
        while connection.recv(4096):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def check_http(server):
    assert requests.get(server.url + "/v1/models", timeout=20).status_code == 200


def check_grpc(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20,
                                                  wait_for_ready=True)


CHECKS = {"HTTP": check_http, "gRPC": check_grpc}


@pytest.mark.parametrize("port, sent", [("HTTP", b""), ("HTTP", b"GET /v1"), ("gRPC", b"")])
def test_idle_connections_make_room(port, sent):
    with Server(*LIMITS) as server:
        CHECKS[port](server)
        before = server.num_descriptors()
        with connections(server, port, 200) as held:
            for connection in held:
                with contextlib.suppress(ConnectionError):  # closed by now
                    connection.sendall(sent)
            wait_until(lambda: server.num_descriptors() <= before + 10)
            for _ in range(5):
                CHECKS[port](server)
            assert is_closed(held[0])
        wait_until(lambda: server.num_descriptors() <= before)


def test_one_that_waits_makes_room_for_one_and_the_newest_stays():
    with Server(*LIMITS) as server:
        kept_alive = RawConnection(server)
        kept_alive.send_request("GET", "/health")
        assert kept_alive.read_reply()[0] == 200
        with connections(server, "HTTP", 7) as silent:
            newest = RawConnection(server)
            for _ in range(2):
                newest.send_request("GET", "/health")
                assert newest.read_reply()[0] == 200
            time.sleep(0.3)
            waiting = [kept_alive.socket, *silent]
            assert sum(is_closed(connection, timeout_s=0.1) for connection in waiting) == 1
        kept_alive.socket.close()
        newest.socket.close()


def begin_stream(server):
    connection = RawConnection(server)
    connection.send_completion(stream=True, max_tokens=20000, ignore_eos=True)
    assert b"200 OK" in connection.read_until(b"\r\n\r\n")
    return connection


def test_a_busy_connection_is_never_closed():
    with Server("--set", "http.max_connections=2") as server:
        streams = [begin_stream(server) for _ in range(2)]
        with connections(server, "HTTP", 3) as refused:
            assert all(is_closed(connection) for connection in refused)
        server.wait_for_log("http.max_connections = 2 are busy")
        for stream in streams:
            assert b"data: " in stream.read_until(b"\n\n")
            stream.socket.close()
        wait_until(lambda: requests.get(server.url + "/health", timeout=10).status_code == 200)


def own_channel(server, stack):
    """A channel that shares its connection with no other."""
    return stack.enter_context(grpc.insecure_channel(
        server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]))


def test_a_busy_call_is_never_closed(stubs):
    messages, services = stubs
    stop = messages.StopRules(max_tokens=20000, ignore_eos=True)
    request = messages.GenerateRequest(text="x", stop=stop)
    with Server("--set", "grpc.max_connections=2") as server, contextlib.ExitStack() as stack:
        streams = []
        for _ in range(2):
            stub = services.InferenceStub(own_channel(server, stack))
            streams.append(stub.Generate(request, timeout=60))
            next(streams[-1])
        with connections(server, "gRPC", 3) as refused:
            assert all(is_closed(connection) for connection in refused)
        server.wait_for_log("grpc.max_connections = 2 are busy")
        for stream in streams:
            next(stream)
            stream.cancel()
        server.wait_until_idle()


def test_health_watches_lock_nobody_out():
    """They need no key and never end."""
    with Server("--api-key", "sesame", "--set", "grpc.max_connections=2") as server, \
            contextlib.ExitStack() as stack:
        for _ in range(2):
            watch = health_pb2_grpc.HealthStub(own_channel(server, stack)).Watch(
                health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        check_grpc(server)
        assert "are busy" not in server.read_log()


def test_probes_cannot_be_locked_out_of_the_admin_port():
    with Server("--admin-port", "0") as server:
        port = int(re.search(r"admin on 127\.0\.0\.1:(\d+)", server.read_log())[1])
        silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(200)]
        for _ in range(3):
            assert requests.get(f"http://127.0.0.1:{port}/ready", timeout=10).status_code == 200
        for connection in silent:
            connection.close()


def test_a_client_that_has_its_refusal_keeps_no_place():
    """It may read for five seconds more; others need the place."""
    with Server(*LIMITS) as server:
        lingering = []
        for _ in range(40):  # one by one: while it is answered a connection is busy
            lingering.append(RawConnection(server))
            lingering[-1].send("nonsense\r\n\r\n")
            assert lingering[-1].read_reply()[0] == 400
        begin = time.monotonic()
        check_http(server)
        assert time.monotonic() - begin < 3
        assert "are busy" not in server.read_log()
        for connection in lingering:
            connection.socket.close()


def test_an_idle_connection_holds_no_header():
    """64 KiB of short lines are a megabyte of the parser's."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 15000 + b"\r\n"
    with Server() as server:
        check_http(server)
        before = rss_bytes(server)
        held = [RawConnection(server) for _ in range(200)]
        for connection in held:
            connection.send(head)
            assert connection.read_reply()[0] in (200, 400)
        assert_rss_returns(server, before, slack_bytes=40 << 20)
        for connection in held:
            connection.socket.close()


@pytest.mark.parametrize("port", ["HTTP", "gRPC"])
def test_one_address_cannot_take_every_connection(port):
    with Server("--set", "server.max_connections_per_address=4") as server:
        before = server.num_descriptors()
        with connections(server, port, 50, source="127.0.0.2"):
            wait_until(lambda: server.num_descriptors() <= before + 4)
            CHECKS[port](server)
            with connections(server, port, 4, source="127.0.0.3") as others:
                time.sleep(0.3)
                assert not any(is_closed(other, timeout_s=0.1) for other in others)


def test_an_address_with_busy_connections_only_is_refused_by_name():
    with Server("--set", "server.max_connections_per_address=1") as server:
        stream = begin_stream(server)
        with connections(server, "HTTP", 1) as (refused,):
            assert is_closed(refused)
        server.wait_for_log("server.max_connections_per_address = 1 are busy, all of 127.0.0.1")
        with connections(server, "HTTP", 1, source="127.0.0.2") as (other,):
            other.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in other.recv(100)
        stream.socket.close()
