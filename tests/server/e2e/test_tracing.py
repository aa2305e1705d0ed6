"""Spans reach a collector under the caller's trace; a collector that is away costs nobody."""

import http.server
import json
import socket
import threading
import time

import pytest

from server_process import Server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector:
    """Takes OTLP over HTTP, as JSON."""

    def __init__(self, status=200):
        self.bodies = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def spans(self):
        return [span for _, _, body in self.bodies for group in body["resourceSpans"]
                for scope in group["scopeSpans"] for span in scope["spans"]]


def attributes(span):
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def traceparent(flags="01"):
    return {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}


def generate(server, headers=None, **fields):
    body = {"prompt": "The ls command", "max_tokens": 4, **fields}
    return server.post("/v1/completions", body, headers=headers)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_a_generation_is_a_span_of_the_callers_trace():
    with Collector() as collector:
        with Server("--otlp-traces-endpoint", collector.endpoint) as server:
            generate(server, {**traceparent(), "X-Request-Id": "traced"})
            generate(server, traceparent(), max_tokens=-1)
        spans = collector.spans()
    path, content_type, body = collector.bodies[0]
    assert (path, content_type) == ("/v1/traces", "application/json")
    resource = attributes(body["resourceSpans"][0]["resource"])
    assert resource["service.name"] == "pbserve"
    assert {span["traceId"] for span in spans} == {TRACE}
    (request,) = [span for span in spans if span["name"] == "llm_request"]
    assert request["parentSpanId"] == PARENT and request["kind"] == 2
    named = attributes(request)
    assert named["gen_ai.request.id"] == "traced"
    assert named["gen_ai.usage.completion_tokens"] == "4"
    assert named["http.response.status_code"] == "200"
    assert 0 < named["gen_ai.latency.time_to_first_token"] < named["gen_ai.latency.e2e"]
    phases = [span for span in spans if span.get("parentSpanId") == request["spanId"]]
    assert [phase["name"] for phase in phases] == ["prepare", "queue", "prefill", "decode"]
    times = [int(request["startTimeUnixNano"])]
    for phase in phases:
        assert int(phase["startTimeUnixNano"]) == times[-1]
        times.append(int(phase["endTimeUnixNano"]))
    assert times == sorted(times) and times[-1] == int(request["endTimeUnixNano"])
    (refused,) = [span for span in spans if span["name"] == "POST /v1/completions"]
    assert attributes(refused)["http.response.status_code"] == "400"


def test_the_caller_decides_whether_a_trace_is_kept():
    with Collector() as collector:
        with Server("--otlp-traces-endpoint", collector.endpoint) as server:
            generate(server, traceparent("00"))
            generate(server, {"traceparent": "nonsense"})
        spans = collector.spans()
    assert TRACE not in {span["traceId"] for span in spans}
    (request,) = [span for span in spans if span["name"] == "llm_request"]
    assert "parentSpanId" not in request


def test_the_trace_is_named_in_the_log():
    with Server() as server:
        generate(server, traceparent())
        server.wait_for_log(f"trace={TRACE}")


@pytest.mark.parametrize("status", [None, 503])
def test_a_collector_that_takes_nothing_costs_nobody(status):
    with Collector(status or 200) as collector:
        endpoint = collector.endpoint
        if status is None:
            endpoint = f"http://127.0.0.1:{free_port()}/v1/traces"
        with Server("--otlp-traces-endpoint", endpoint) as server:
            for _ in range(5):
                generate(server)
            begin = time.monotonic()
            server.stop()
            assert time.monotonic() - begin < 5
            assert "spans were not taken" in server.read_log()


def test_an_endpoint_that_is_no_url_is_refused_by_name():
    with pytest.raises(AssertionError, match="tracing.otlp_endpoint = collector:4318"):
        Server("--otlp-traces-endpoint", "collector:4318")
