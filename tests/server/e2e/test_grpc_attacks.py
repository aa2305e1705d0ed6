"""gRPC clients that no honest program is. Memory and descriptors come back, and others are served
meanwhile."""

import resource
import socket
import subprocess
import threading
import time

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

import server_process
from process_memory import status_bytes
from raw_grpc import RawGrpc
from server_process import ROOT, Server, run_in_threads

MIB = 1 << 20
KEY = "sesame"
WITH_KEY = [("authorization", f"Bearer {KEY}")]
GENERATE = "/pbserve.v1.Inference/Generate"
TOKENIZE = "/pbserve.v1.Inference/Tokenize"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture(scope="module")
def locked():
    """A server with a key and small limits."""
    with Server("--api-key", KEY, "--set", f"grpc.max_message_bytes={64 * MIB}",
                "--set", f"server.max_buffered_bytes={64 * MIB}",
                "--set", "grpc.receive_timeout_s=3") as server:
        yield server


def is_sanitized(server):
    """AddressSanitizer keeps freed memory for a while, and ends the process when there is none."""
    with open(f"/proc/{server.process.pid}/maps") as file:
        return "libasan" in file.read()


class Memory:
    """What the server's process holds, in MiB, against the start of the `with`."""

    def __init__(self, server):
        self.server = server
        self.is_sanitized = is_sanitized(server)

    def _read(self, name):
        return status_bytes(self.server, name) / MIB

    def __enter__(self):
        with open(f"/proc/{self.server.process.pid}/clear_refs", "w") as file:
            file.write("5")  # the peak starts here
        self.start = self._read("VmRSS")
        return self

    def __exit__(self, *_):
        pass

    @property
    def peak(self):
        return (self._read("VmHWM") - self.start) / (3 if self.is_sanitized else 1)

    def wait_until_back(self, within_mib, timeout_s=20):
        deadline = time.monotonic() + timeout_s
        while self._read("VmRSS") - self.start > within_mib and not self.is_sanitized:
            assert time.monotonic() < deadline, f"{self._read('VmRSS') - self.start} MiB are kept"
            time.sleep(0.1)


class HonestClient:
    """Generates over and over; stop() tells how often, and that nothing failed. Has generated once
    when it is made: what the engine touches first (40 MB of its cache) is no attack's doing."""

    def __init__(self, server, stubs):
        self.messages, services = stubs
        self.channel = grpc.insecure_channel(server.grpc_address)
        self.stub = services.InferenceStub(self.channel)
        self.error = None
        self.num_done = 0
        self.is_over = threading.Event()
        self.generate()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def generate(self):
        m = self.messages
        request = m.GenerateRequest(text="The ls command", stop=m.StopRules(max_tokens=2))
        events = list(self.stub.Generate(request, metadata=WITH_KEY, timeout=30))
        assert events[-1].HasField("finished")

    def _run(self):
        try:
            while not self.is_over.is_set():
                self.generate()
                self.num_done += 1
                time.sleep(0.05)
        except Exception as error:  # told by stop()
            self.error = error

    def stop(self):
        self.is_over.set()
        self.thread.join()
        assert self.error is None and self.num_done > 0, self.error
        self.generate()
        self.channel.close()


def upload(server, method, key, num_bytes, for_s):
    """(bytes that the server took, whether it ended the call) of one huge message."""
    with RawGrpc(server) as connection:
        connection.listen(0.2)
        stream = connection.start_call(method, key)
        connection.begin_message(stream, num_bytes + 1)  # the last byte is withheld
        until = time.monotonic() + for_s
        sent = connection.upload(stream, num_bytes, until)
        while stream not in connection.closed and time.monotonic() < until:
            connection.listen(0.1)
        return sent, stream in connection.closed


@pytest.mark.parametrize("method", [GENERATE, TOKENIZE, REFLECTION])
def test_no_message_is_read_before_the_key(locked, stubs, method):
    honest = HonestClient(locked, stubs)
    with Memory(locked) as memory:
        results = run_in_threads(lambda _: upload(locked, method, None, 100 * MIB, 10), range(10))
        assert all(sent <= MIB and is_ended for sent, is_ended in results), results
        assert memory.peak < 30
        memory.wait_until_back(20)
    honest.stop()


@pytest.mark.parametrize("method", [HEALTH, WATCH])
def test_a_probe_cannot_send_much(locked, stubs, method):
    """Health needs no key: its messages are a few bytes, or end the call."""
    honest = HonestClient(locked, stubs)
    with Memory(locked) as memory:
        begin = time.monotonic()
        results = run_in_threads(lambda _: upload(locked, method, None, 100 * MIB, 10), range(10))
        assert all(is_ended for _, is_ended in results), results
        assert time.monotonic() - begin < 8
        assert memory.peak < 150
        memory.wait_until_back(60)
    assert f"{method[1:]} id=" in locked.read_log()
    assert "the message is too large" in locked.read_log()
    honest.stop()


def test_a_watch_does_not_keep_the_name_that_it_asked_for(locked):
    """Without a key 64 KB each, for as long as the client likes."""
    request = health_pb2.HealthCheckRequest(service="x" * 60000)
    with Memory(locked) as memory, grpc.insecure_channel(locked.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(2000):
            watches.append(stub.Watch(request))
            assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        memory.wait_until_back(60)
        for watch in watches:
            watch.cancel()


def test_messages_being_received_share_one_budget(locked, stubs):
    """Ten times 50 MiB do not fit into 64 MiB: some are refused, and nobody else."""
    honest = HonestClient(locked, stubs)
    with Memory(locked) as memory:
        results = run_in_threads(lambda _: upload(locked, TOKENIZE, KEY, 50 * MIB, 15), range(10))
        assert all(is_ended for _, is_ended in results), results
        assert memory.peak < 200
        memory.wait_until_back(60)
    locked.wait_for_log("what is being received finds no room")
    assert "server.max_buffered_bytes = 67108864" in locked.read_log()
    honest.stop()


def test_many_messages_of_one_connection_are_not_added_up(locked, stubs):
    """120 MB pass through a budget of 64 MiB, little of it at a time."""
    messages, services = stubs
    unknown = messages.DetokenizeRequest(ids=[-1] * 200_000)  # ten bytes each; soon refused
    with grpc.insecure_channel(locked.grpc_address) as channel:
        stub = services.InferenceStub(channel)

        def send(_):
            for _ in range(15):
                with pytest.raises(grpc.RpcError) as refused:
                    stub.Detokenize(unknown, metadata=WITH_KEY)
                assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        run_in_threads(send, range(4))


def test_a_broken_text_writes_nothing_past_the_log(locked):
    with grpc.insecure_channel(locked.grpc_address) as channel:
        tokenize = channel.unary_unary(TOKENIZE)
        with pytest.raises(grpc.RpcError) as refused:
            tokenize(b"\x0a\x02\xff\xff", metadata=WITH_KEY)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "libprotobuf" not in locked.read_log()


def test_a_slow_message_ends_in_time(locked, stubs):
    """A byte now and then does not keep a call alive."""
    honest = HonestClient(locked, stubs)
    with RawGrpc(locked) as connection:
        streams = [connection.start_call(method, KEY) for method in (GENERATE, TOKENIZE) * 20]
        begin = time.monotonic()
        for stream in streams[1:]:  # the first one sends nothing at all
            connection.begin_message(stream, 1000)
        while not connection.closed.issuperset(streams):
            for stream in streams[1:]:
                if stream not in connection.closed:
                    connection.send(stream, b"x")
            connection.listen(0.2)
            assert time.monotonic() - begin < 10
        assert time.monotonic() - begin > 2
    assert "the request message did not arrive within 3 s" in locked.read_log()
    honest.stop()


def test_compressed_messages_are_refused(locked, stubs):
    """A megabyte of zeros is a kilobyte on the wire, and a gigabyte a megabyte."""
    messages, services = stubs
    with grpc.insecure_channel(locked.grpc_address, compression=grpc.Compression.Gzip) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            services.InferenceStub(channel).Tokenize(
                messages.TokenizeRequest(text="x" * MIB), metadata=WITH_KEY)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "gzip" in refused.value.details()


def empty_chat_messages(number):
    """A GenerateRequest whose chat has so many: two bytes each, a hundred once they are parsed."""
    return b"\x2a" + _varint(2 * number) + b"\x0a\x00" * number


def _varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_a_parsed_message_is_part_of_the_budget(locked):
    """4 MB that would be 150."""
    with Memory(locked) as memory, grpc.insecure_channel(locked.grpc_address) as channel:
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(GENERATE)(empty_chat_messages(2_000_000), metadata=WITH_KEY)
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "server.max_buffered_bytes = 67108864" in refused.value.details()
            details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
            assert b"google.rpc.RetryInfo" in details
        assert memory.peak < 110


def test_out_of_memory_ends_the_call_and_not_the_server():
    with Server() as server, grpc.insecure_channel(
            server.grpc_address, options=[("grpc.max_send_message_length", -1)]) as channel:
        if is_sanitized(server):
            pytest.skip("AddressSanitizer ends the process")
        check_health(server)
        with open(f"/proc/{server.process.pid}/statm") as file:
            mapped = int(file.read().split()[0]) * 4096
        limit = mapped + 250 * MIB
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit, limit))
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(GENERATE)(empty_chat_messages(5_000_000))
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "has no memory" in refused.value.details()
            server.complete("x", max_tokens=1)


def test_refused_calls_are_logged(locked, stubs):
    messages, services = stubs
    with grpc.insecure_channel(locked.grpc_address) as channel:
        with pytest.raises(grpc.RpcError):
            services.InferenceStub(channel).GetLoad(messages.GetLoadRequest())
        with pytest.raises(grpc.RpcError) as refused:  # nobody learns what exists
            channel.unary_unary("/pbserve.v1.Inference/Nope")(b"")
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary("/pbserve.v1.Inference/Nope")(b"", metadata=WITH_KEY)
        assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert unknown.value.details() == "no method /pbserve.v1.Inference/Nope"
    log = locked.read_log()
    assert "pbserve.v1.Inference/GetLoad id=" in log and "status=401" in log
    assert "no method /pbserve.v1.Inference/Nope" in log


def test_bytes_that_are_no_message(locked):
    for method, name in ((GENERATE, "GenerateRequest"), (TOKENIZE, "TokenizeRequest")):
        with grpc.insecure_channel(locked.grpc_address) as channel:
            call = channel.unary_unary(method)
            with pytest.raises(grpc.RpcError) as refused:
                call(b"\xff\xff\xff", metadata=WITH_KEY)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details() == f"the message does not parse as pbserve.v1.{name}"
            with pytest.raises(grpc.RpcError) as empty:
                channel.stream_unary(method)(iter([]), metadata=WITH_KEY)
            assert empty.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert empty.value.details() == "the call ended without a request message"


def test_a_huge_request_id_costs_no_log_line(locked, stubs):
    messages, services = stubs
    before = len(locked.read_log())
    with grpc.insecure_channel(locked.grpc_address,
                               options=[("grpc.max_send_message_length", -1)]) as channel:
        stub = services.InferenceStub(channel)
        begin = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Generate(messages.GenerateRequest(text="x", request_id="\x01" * (20 * MIB)),
                               metadata=WITH_KEY))
        assert time.monotonic() - begin < 3
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "request_id must be 1 to 128 of" in refused.value.details()
    assert len(locked.read_log()) - before < 2000


def check_health(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20,
                                                  wait_for_ready=True)


def idle_connections(server, number):
    host, port = server.grpc_address.split(":")
    return [socket.create_connection((host, int(port)), timeout=5) for _ in range(number)]


def test_the_listener_survives_too_many_open_files():
    with Server() as server:
        check_health(server)
        limit = server.num_descriptors() + 20
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        held = idle_connections(server, 60)
        deadline = time.monotonic() + 10
        while "gRPC accept: Too many open files" not in server.read_log():
            assert time.monotonic() < deadline, server.read_log()
            time.sleep(0.05)
        for connection in held:
            connection.close()
        check_health(server)


def test_connections_fit_the_limit_on_open_files(tmp_path, monkeypatch):
    """Told at start, and what is in force is shown and kept to."""
    program = tmp_path / "pbserve"
    program.write_text(f'#!/bin/sh\nulimit -n 160\nexec {server_process.BINARY} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(server_process, "BINARY", str(program))
    with Server() as server:
        for name in ("http", "grpc"):
            assert (f"{name}.max_connections = 4096 is lowered to 16: RLIMIT_NOFILE = 160"
                    in server.read_log())
            config = requests.get(server.url + "/config", timeout=30).json()
            assert config[name]["max_connections"] == 16
        held = idle_connections(server, 100)
        server.complete("x", max_tokens=1)  # HTTP has descriptors still
        for connection in held:
            connection.close()
        check_health(server)
        assert "Too many open files" not in server.read_log()


def test_a_taken_grpc_port_is_told_before_the_model_loads(server, tmp_path):
    port = server.grpc_address.split(":")[1]
    (tmp_path / "no-model").mkdir()
    result = subprocess.run(
        [server_process.BINARY, "--model", str(tmp_path / "no-model"), "--port", "0",
         "--grpc-port", port], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert result.returncode == 1
    assert f"gRPC cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr
    assert "no-model" not in result.stderr
