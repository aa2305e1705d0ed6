"""Clients that leave, crowd or stall; and how the server ends."""

import json
import signal
import socket
import time

import grpc
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raw_grpc import RawGrpc
from raw_http import RawConnection
from server_process import SPEED, Server, run_in_threads, wait_until

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG = "Files and directories are listed by name. " * 2500  # some 20K tokens


def load(server):
    return requests.get(server.url + "/load", timeout=30).json()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["at once", "prefill", "decode"])
def test_disconnect_frees_everything(server, stream, phase):
    connection = RawConnection(server)
    prompt = "The ls command" if phase == "decode" else LONG
    connection.send_completion(prompt=prompt, max_tokens=8000, ignore_eos=True, stream=stream,
                               request_id=f"left-{phase[:2]}-{stream}".replace(" ", ""))
    if phase != "at once":
        wait_until(lambda: load(server)["num_running"] > 0)
    if phase == "decode" and stream:
        connection.read_until(b"data: ")
    connection.close()
    server.wait_until_idle(timeout_s=20)
    server.complete("x", max_tokens=1)


def test_disconnects_are_logged_as_499(server):
    connection = RawConnection(server)
    connection.send_completion(max_tokens=8000, ignore_eos=True, stream=True, request_id="gone-1")
    connection.read_until(b"data: ")
    connection.close()
    wait_until(lambda: "id=gone-1 status=499" in server.read_log())


def test_half_close_counts_as_leaving(server):
    with RawConnection(server) as connection:
        connection.send_completion(max_tokens=8000, ignore_eos=True)
        connection.socket.shutdown(socket.SHUT_WR)
        server.wait_until_idle(timeout_s=20)


def test_pages_return_to_the_baseline():
    """By the metric that dashboards watch, without a prefix cache that would hold pages."""
    with Server("--no-enable-prefix-caching") as plain:
        for i in range(12):
            connection = RawConnection(plain)
            connection.send_completion(prompt=LONG[:200 * (i + 1)], max_tokens=4000,
                                       ignore_eos=True, stream=True)
            if i % 2:
                connection.read_until(b"data: ")
            connection.close()
        plain.wait_until_idle()
        plain.complete("x", max_tokens=1)
        metrics = plain.metrics()
        assert metrics["pbserve:kv_cache_usage_perc"] == 0
        assert metrics["pbserve:num_requests_running"] == 0
        assert metrics["pbserve:num_requests_waiting"] == 0


def test_client_that_never_reads_is_cancelled():
    flags = ["--set", "server.response_buffer_bytes=4096", "--set", "http.write_timeout_s=2"]
    with Server(*flags) as small:
        connections = []
        for i in range(2):
            stalled = socket.socket()
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stalled.connect(("127.0.0.1", small.port))
            body = json.dumps({"prompt": "The ls command", "max_tokens": 12000, "ignore_eos": True,
                               "stream": True, "request_id": "y" * 120 + str(i)}).encode()
            stalled.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                            b"Content-Length: %d\r\n\r\n" % len(body) + body)
            connections.append(stalled)
        wait_until(lambda: small.read_log().count("status=429") +
                   small.read_log().count("status=499") >= 2, timeout_s=120)
        small.wait_until_idle()
        small.complete("x", max_tokens=1)
        for stalled in connections:
            stalled.close()


def test_500_streams_cost_no_threads():
    with Server("--max-num-seqs", "4") as busy:
        busy.complete("x", max_tokens=1)  # threads that start at first use are there
        before = busy.num_threads()
        streams = []
        for i in range(500):
            stream = RawConnection(busy)
            stream.send_completion(stream=True, max_tokens=30000, ignore_eos=True)
            streams.append(stream)
        for stream in streams:
            assert b"200 OK" in stream.read_until(b"\r\n\r\n")
        assert load(busy)["num_running"] + load(busy)["num_waiting"] == 500
        assert busy.num_threads() <= before + 1
        assert requests.get(busy.url + "/health", timeout=5).status_code == 200
        for stream in streams:
            stream.close()
        busy.wait_until_idle()


def test_silence_is_filled_with_comments():
    flags = ["--sse-keep-alive-interval", "0.2", "--max-num-seqs", "1"]
    with Server(*flags) as slow:
        ahead = RawConnection(slow)
        ahead.send_completion(stream=True, max_tokens=30000, ignore_eos=True)
        ahead.read_until(b"data: ")
        with RawConnection(slow) as waiting, RawConnection(slow) as silent:
            waiting.send_completion(stream=True)
            silent.send_completion(stream=True, sse_keep_alive=False)
            for _ in range(3):
                assert waiting.read_until(b"\n\n").endswith(b": keep-alive\n\n")
            silent.read_until(b"\r\n\r\n")
            silent.socket.settimeout(0.6)
            with pytest.raises(TimeoutError):
                silent.socket.recv(1)
        ahead.close()


def test_full_queue_is_429_with_retry_after():
    with Server("--max-num-seqs", "1", "--max-num-queued-reqs", "2") as small:
        body = {"prompt": "x", "max_tokens": 30000, "ignore_eos": True, "stream": True}
        open_replies = []
        statuses = []
        for _ in range(8):
            reply = small.post("/v1/completions", body, stream=True)
            statuses.append(reply.status_code)
            if reply.status_code == 429:
                assert int(reply.headers["Retry-After"]) >= 1
            open_replies.append(reply)
        assert statuses.count(200) >= 2 and statuses.count(429) >= 3
        for reply in open_replies:
            reply.close()
        small.wait_until_idle()


def test_a_long_tokenisation_does_not_block_others(server):
    def long(_):
        return server.post("/tokenize", {"prompt": "word " * 2000000}).status_code

    def short(_):
        time.sleep(0.3)
        begin = time.monotonic()
        assert server.post("/tokenize", {"prompt": "Hi"}).status_code == 200
        return time.monotonic() - begin

    results = run_in_threads(lambda work: work(0), [long, short, short])
    assert max(results[1:]) < 1, results


def test_sigterm_lets_requests_finish():
    with Server() as ending:
        connection = RawConnection(ending)
        connection.send_completion(stream=True, max_tokens=600 * SPEED, ignore_eos=True)
        connection.read_until(b"data: ")
        ending.begin_stop()
        wait_until(lambda: "draining" in ending.read_log())
        assert requests.get(ending.url + "/ready", timeout=5).status_code == 503
        assert requests.get(ending.url + "/health", timeout=5).status_code == 200
        late = ending.post("/v1/completions", {"prompt": "x"})
        assert late.status_code == 503 and "Retry-After" in late.headers
        assert connection.read_until(b"[DONE]\n\n").endswith(b"[DONE]\n\n")
        ending.stop()


def test_shutdown_timeout_cuts_off_with_an_error():
    with Server("--shutdown-timeout", "0.5") as ending:
        connection = RawConnection(ending)
        connection.send_completion(stream=True, max_tokens=30000, ignore_eos=True)
        connection.read_until(b"data: ")
        begin = time.monotonic()
        ending.begin_stop()
        rest = connection.read_until(b"never")
        assert b'"error"' in rest and b"shut down" in rest
        ending.stop(timeout_s=20)
        assert time.monotonic() - begin < 10


def test_both_fronts_share_the_time_for_last_bytes():
    """A body and a message that never come to their ends: five seconds for both, not for each."""
    with Server() as server, RawConnection(server) as upload, RawGrpc(server) as call:
        upload.send("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        stream = call.start_call("/pbserve.v1.Inference/Tokenize", "")
        call.begin_message(stream, 1000)
        call.listen(0.5)
        begin = time.monotonic()
        server.stop()
        assert 4 < time.monotonic() - begin < 8


def test_what_needs_no_worker_answers_over_grpc_to_the_end_of_a_drain(stubs):
    messages, services = stubs
    with Server() as ending, grpc.insecure_channel(ending.grpc_address) as channel:
        stub = services.InferenceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        stop = messages.StopRules(max_tokens=30000, ignore_eos=True)
        stream = stub.Generate(messages.GenerateRequest(text="x", stop=stop))
        next(stream)
        ending.begin_stop()
        with pytest.raises(grpc.RpcError) as refused:
            while True:  # until the drain has begun
                stub.Tokenize(messages.TokenizeRequest(text="x"), timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in refused.value.details()
        request = health_pb2.HealthCheckRequest()
        assert health.Check(request, timeout=10).status == NOT_SERVING
        watch = health.Watch(request, timeout=10)
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        load = stub.GetLoad(messages.GetLoadRequest(), timeout=10)
        assert load.num_running + load.num_waiting == 1
        assert stub.ListModels(messages.ListModelsRequest(), timeout=10).models
        assert stub.GetServerInfo(messages.GetServerInfoRequest(), timeout=10)
        stream.cancel()
        ending.stop()


def test_second_signal_stops_at_once():
    ending = Server("--shutdown-timeout", "60")
    connection = RawConnection(ending)
    connection.send_completion(stream=True, max_tokens=30000, ignore_eos=True)
    connection.read_until(b"data: ")
    ending.begin_stop()
    wait_until(lambda: "draining" in ending.read_log())
    ending.process.send_signal(signal.SIGTERM)
    assert ending.process.wait(10) == 1


def test_port_in_use_is_an_error(server):
    for flags in (["--port", str(server.port)], ["--grpc-port", server.grpc_address.split(":")[1]]):
        with pytest.raises(AssertionError, match="in use"):
            Server(*flags)
