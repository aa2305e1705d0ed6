"""/ready and gRPC's health say alike whether more requests should come, and why not."""

import resource
import socket
import threading

import grpc
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raw_http import RawConnection
from server_process import Server, wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Watch:
    """The statuses that gRPC's health has told, in their order."""

    def __init__(self, server):
        self.channel = grpc.insecure_channel(server.grpc_address)
        self.call = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest())
        self.statuses = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            for update in self.call:
                self.statuses.append(update.status)
        except grpc.RpcError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


def ask(connection):
    connection.send_request("GET", "/ready")
    status, _, body = connection.read_reply()
    return status, body.decode()


READY = (200, '{"status":"ready"}')


def test_a_full_queue_is_not_ready():
    with Server("--max-num-queued-reqs", "1", "--max-num-seqs", "1") as server, \
            Watch(server) as watch, RawConnection(server) as probe:
        wait_until(lambda: watch.statuses == [SERVING])
        assert ask(probe) == READY
        with RawConnection(server) as running, RawConnection(server) as waiting:
            for connection in (running, waiting):
                connection.send_completion(max_tokens=30000, ignore_eos=True, stream=True)
                wait_until(lambda: server.metrics()["pbserve:num_requests_running"] == 1)
            wait_until(lambda: ask(probe)[0] == 503, timeout_s=5)
            assert ask(probe) == (503, '{"status":"not ready","reason":"queue full"}')
            wait_until(lambda: watch.statuses == [SERVING, NOT_SERVING], timeout_s=5)
            assert requests.get(server.url + "/health", timeout=10).status_code == 200
        wait_until(lambda: ask(probe) == READY, timeout_s=5)
        wait_until(lambda: watch.statuses == [SERVING, NOT_SERVING, SERVING], timeout_s=5)


def test_without_descriptors_it_is_not_ready():
    with Server() as server, Watch(server) as watch, RawConnection(server) as probe:
        wait_until(lambda: watch.statuses == [SERVING])
        assert ask(probe) == READY
        limit = server.num_descriptors() + 40
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
        wait_until(lambda: ask(probe)[0] == 503, timeout_s=5)
        assert ask(probe) == (503, '{"status":"not ready","reason":"out of descriptors"}')
        wait_until(lambda: watch.statuses == [SERVING, NOT_SERVING], timeout_s=5)
        for connection in held:
            connection.close()
        wait_until(lambda: ask(probe) == READY, timeout_s=15)
        wait_until(lambda: watch.statuses == [SERVING, NOT_SERVING, SERVING], timeout_s=5)


def test_the_description_knows_the_reasons():
    with Server() as server:
        document = requests.get(server.url + "/openapi.json", timeout=10).json()
        answer = document["paths"]["/ready"]["get"]["responses"]["503"]["content"]
        reasons = answer["application/json"]["schema"]["properties"]["reason"]["enum"]
        assert {"queue full", "out of descriptors", "draining"} < set(reasons)


def test_draining_is_not_ready_at_once():
    with Server("--drain-delay", "3") as server, Watch(server) as watch, \
            RawConnection(server) as probe:
        wait_until(lambda: watch.statuses == [SERVING])
        assert ask(probe) == READY
        server.begin_stop()
        server.wait_for_log("draining")
        assert requests.get(server.url + "/ready", timeout=5).json()["reason"] == "draining"
        wait_until(lambda: watch.statuses == [SERVING, NOT_SERVING], timeout_s=2)
