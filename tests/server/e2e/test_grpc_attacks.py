"""gRPC clients that no honest program is. Memory and descriptors come back, and others are served
meanwhile."""

import os
import resource
import socket
import subprocess
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import server_process
from server_process import ROOT, Server


def check_health(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20,
                                                  wait_for_ready=True)


def idle_connections(server, number):
    host, port = server.grpc_address.split(":")
    return [socket.create_connection((host, int(port)), timeout=5) for _ in range(number)]


def num_descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_the_listener_survives_too_many_open_files():
    with Server() as server:
        check_health(server)
        limit = num_descriptors(server) + 20
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        held = idle_connections(server, 60)
        deadline = time.monotonic() + 10
        while "gRPC accept: Too many open files" not in server.read_log():
            assert time.monotonic() < deadline, server.read_log()
            time.sleep(0.05)
        for connection in held:
            connection.close()
        check_health(server)


def test_connection_limit_of_grpc():
    with Server("--set", "grpc.max_connections=4") as server:
        held = idle_connections(server, 4)
        time.sleep(0.2)
        for extra in idle_connections(server, 50):
            assert extra.recv(100) == b""  # closed, where others get the server's settings
        assert server.read_log().count("grpc.max_connections = 4 are open") == 1
        for connection in held:
            connection.close()
        time.sleep(0.2)
        check_health(server)


def test_a_taken_grpc_port_is_told_before_the_model_loads(server, tmp_path):
    port = server.grpc_address.split(":")[1]
    result = subprocess.run(
        [server_process.BINARY, "--model", str(tmp_path / "no-model"), "--port", "0",
         "--grpc-port", port], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert result.returncode == 1
    assert f"gRPC cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr
    assert "no-model" not in result.stderr
