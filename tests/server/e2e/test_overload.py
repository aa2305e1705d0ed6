"""A server with more work than it may queue says so before that costs anything, and says when there
will be room."""

import json
import time

import grpc
import pytest

from raw_grpc import RawGrpc
from raw_http import RawConnection
from server_process import Server, wait_until

GENERATE = "/pbserve.v1.Inference/Generate"
LONG_TOKENS = 15_000  # seconds of prefill on a CPU
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def long_prompt(number):
    """Token ids that share nothing with those of another number."""
    return [300 + (i * (2 * number + 3) + number) % 1000 for i in range(LONG_TOKENS)]


class Queue:
    """Clients that wait for long prompts; what is left of them goes with the `with`."""

    def __init__(self, server):
        self.server = server
        self.connections = []

    def add(self):
        connection = RawConnection(self.server)
        body = {"prompt": long_prompt(len(self.connections)), "max_tokens": 1, "stream": True,
                "sparse_attention": {"mode": "dense"}}
        connection.send_request("POST", "/v1/completions", json.dumps(body).encode())
        self.connections.append(connection)
        return connection.read_reply()  # an event stream has no length: its head alone

    def measure(self):
        """One prompt alone, from which the server knows how fast it is."""
        self.add()
        self.connections[0].read_until(b"[DONE]")

    def fill(self):
        """Adds until one is refused; the reply to that."""
        for _ in range(50):
            status, headers, body = self.add()
            if status != 200:
                return status, headers, body
        raise AssertionError("the queue takes everything")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.connections:
            connection.close()
        self.server.wait_until_idle()


@pytest.fixture
def full():
    """One request decodes for half a minute, and one waits for it: nothing more is taken."""
    with Server("--max-num-queued-reqs", "1", "--max-num-seqs", "1", "--set",
                "device.cpu_threads=1") as server, \
            RawConnection(server) as running, RawConnection(server) as waiting:
        for connection in (running, waiting):
            connection.send_completion(max_tokens=30000, ignore_eos=True, stream=True)
            assert connection.read_reply()[0] == 200
            wait_until(lambda: server.metrics()["pbserve:num_requests_running"] == 1)
        wait_until(lambda: server.metrics()["pbserve:num_requests_waiting"] == 1)
        yield server


def huge_chat():
    """30 MB, which take seconds to parse, render and tokenise."""
    return json.dumps({"messages": [{"role": "user", "content": "word " * 6_000_000}]}).encode()


def num_rejected(server):
    return server.metrics().get("pbserve:requests_rejected_total", 0)


def cpu_s(server):
    with open(f"/proc/{server.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def retry_delay_s(error):
    """The RetryInfo of a refused call, read with protobuf alone: Status.details[].value."""
    from google.protobuf import any_pb2, duration_pb2

    def fields(data):
        at = 0
        while at < len(data):
            key, at = data[at], at + 1
            value, shift = 0, 0
            while True:
                byte, at = data[at], at + 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            if key & 7 == 2:
                yield key >> 3, data[at:at + value]
                at += value

    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    for number, item in fields(details):
        packed = any_pb2.Any.FromString(item) if number == 3 else None
        if packed is not None and packed.type_url == RETRY_INFO:
            return duration_pb2.Duration.FromString(dict(fields(packed.value))[1]).seconds
    return 0


def test_a_full_queue_refuses_a_huge_chat_before_its_body_comes(full):
    body = huge_chat()
    rejected = num_rejected(full)
    with RawConnection(full) as connection:
        connection.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n")
        begin = time.monotonic()
        status, headers, reply = connection.read_reply()  # not a byte of the body was sent
        assert time.monotonic() - begin < 0.5
        assert status == 429 and b"1 requests are waiting, the limit is 1" in reply
        assert headers["connection"] == "close" and 1 <= int(headers["retry-after"]) <= 600
    with RawConnection(full) as connection:  # who sends all of it first gets the answer too
        connection.send_request("POST", "/v1/chat/completions", body)
        assert connection.read_reply()[0] == 429
    assert num_rejected(full) == rejected + 2


def test_a_refused_body_costs_no_tokenising(full, server):
    """CPU time, of which the one thread that decodes takes its part meanwhile."""
    body = huge_chat()
    with RawConnection(server) as connection:
        before = cpu_s(server)
        connection.send_request("POST", "/v1/chat/completions", body)
        assert connection.read_reply()[0] == 400  # longer than the context: found by tokenising
        cost = cpu_s(server) - before
    with RawConnection(full) as connection:
        before, begin = cpu_s(full), time.monotonic()
        connection.send_request("POST", "/v1/chat/completions", body)
        assert connection.read_reply()[0] == 429
        decoding = (time.monotonic() - begin) * 1.2
        assert cpu_s(full) - before - decoding < cost / 4


def test_retry_after_grows_with_the_queue_and_is_kept():
    with Server("--set", f"scheduler.max_num_queued_tokens={3 * LONG_TOKENS + 100}",
                "--no-enable-prefix-caching") as server, Queue(server) as queue:
        queue.measure()

        def send_twice_as_long():
            with RawConnection(server) as connection:
                connection.send_completion(prompt=long_prompt(70) * 2, stream=True, max_tokens=1)
                status, headers, _ = connection.read_reply()
                return status, int(headers.get("retry-after", 0))

        for _ in range(2):  # one runs, one waits
            assert queue.add()[0] == 200
        status, before = send_twice_as_long()
        assert status == 429
        assert queue.add()[0] == 200
        status, delay_s = send_twice_as_long()
        assert status == 429 and delay_s > before >= 1
        for _ in range(4):  # an estimate: prompts slow down as they grow, and others use the CPU
            time.sleep(delay_s)
            status, delay_s = send_twice_as_long()
            if status == 200:
                break
        assert status == 200


def test_estimated_seconds_bound_the_queue(stubs):
    messages, services = stubs
    with Server("--max-queue-time", "2", "--no-enable-prefix-caching") as server, \
            Queue(server) as queue:
        queue.measure()
        status, headers, body = queue.fill()
        assert status == 429 and b"the limit is 2 s (--max-queue-time)" in body
        first = int(headers["retry-after"])
        assert first >= 1
        # A short prompt does not wait behind long ones.
        assert server.complete("The ls command", max_tokens=1)
        with grpc.insecure_channel(server.grpc_address) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                list(services.InferenceStub(channel).Generate(messages.GenerateRequest(
                    token_ids=messages.TokenIds(ids=long_prompt(99))), timeout=60))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 1 <= retry_delay_s(refused.value) <= 600


def test_grpc_refuses_before_the_message_comes(full, stubs):
    messages, services = stubs
    with RawGrpc(full) as connection:
        connection.listen(0.2)
        stream = connection.start_call(GENERATE)
        deadline = time.monotonic() + 5
        while stream not in connection.closed:
            assert time.monotonic() < deadline
            connection.listen(0.1)
    with grpc.insecure_channel(full.grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            list(services.InferenceStub(channel).Generate(messages.GenerateRequest(text="x")))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 requests are waiting" in refused.value.details()
        assert retry_delay_s(refused.value) >= 1
        services.InferenceStub(channel).GetLoad(messages.GetLoadRequest(), timeout=10)


def test_draining_names_the_rest_of_the_drain():
    with Server("--shutdown-timeout", "20") as server, RawConnection(server) as running, \
            RawConnection(server) as late:
        running.send_completion(stream=True, max_tokens=30000, ignore_eos=True)
        running.read_until(b"data: ")
        late.send_request("GET", "/health")
        assert late.read_reply()[0] == 200
        server.begin_stop()
        time.sleep(2)
        late.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n")
        status, headers, _ = late.read_reply()
        assert status == 503 and 10 <= int(headers["retry-after"]) <= 19
        running.close()
