"""One line a request, with nothing of the client's prompt or key. A log that nobody reads stops no
stream, and does not keep the process."""

import fcntl
import json
import re
import subprocess
import time

import grpc
import pytest
import requests

from server_process import BINARY, DEVICE_FLAGS, ROOT, Server

PIPE_BYTES = 4096  # the smallest pipe: some thirty lines
REQUESTS = 60
ALICE, UNNAMED = "sk-alice-1", "sk-unnamed-2"


def start_with_a_pipe():
    process = subprocess.Popen(
        [BINARY, "--model", "models/demo", "--port", "0", "--no-grpc", *DEVICE_FLAGS], cwd=ROOT,
        stderr=subprocess.PIPE)
    for line in process.stderr:
        found = re.search(rb"HTTP on 127\.0\.0\.1:(\d+)", line)
        if found:
            return process, f"http://127.0.0.1:{int(found.group(1))}"
    raise AssertionError("the server did not start")


def test_a_stalled_log_stops_no_request_and_no_shutdown():
    process, url = start_with_a_pipe()
    try:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for _ in range(REQUESTS):
            reply = requests.post(url + "/v1/completions",
                                  json={"prompt": "The ls command", "max_tokens": 2}, timeout=20)
            assert reply.status_code == 200
        begin = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - begin < 15
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_last_lines_are_written():
    process, url = start_with_a_pipe()
    requests.post(url + "/v1/completions",
                  json={"prompt": "x", "max_tokens": 1, "request_id": "last-1"}, timeout=20)
    process.terminate()
    log = process.stderr.read().decode()
    assert process.wait(20) == 0
    assert "id=last-1 status=200" in log
    assert log.rstrip().endswith("stopped")


@pytest.fixture(scope="module")
def keyed():
    with Server("--api-key", f"{ALICE} name=alice", "--api-key", UNNAMED) as running:
        yield running


@pytest.fixture(scope="module")
def json_log():
    with Server("--api-key", f"{ALICE} name=alice", "--log-format", "json") as running:
        yield running


def lines_of(server, request_id):
    """The request lines of an id, once there is one; a moment later there is no second one."""
    server.wait_for_log(f"{request_id} ")
    time.sleep(0.1)
    return [line for line in server.read_log().splitlines() if f" id={request_id} " in line]


def bearer(key, **headers):
    return {"Authorization": f"Bearer {key}"} | headers


@pytest.mark.parametrize("number, method, path, body, key, status", [
    (1, "GET", "/v1/models", None, ALICE, 200),
    (2, "GET", "/config", None, UNNAMED, 200),
    (3, "POST", "/tokenize", {"prompt": "wombat-7261"}, ALICE, 200),
    (4, "POST", "/tokenize", {"prompt": 7}, ALICE, 400),
    (5, "POST", "/v1/completions", {"prompt": "wombat-7261", "max_tokens": 3}, ALICE, 200),
    (6, "POST", "/v1/completions", {"prompt": "x", "max_tokens": 3, "stream": True}, ALICE, 200),
    (7, "POST", "/v1/completions", {"prompt": "x", "n": 2}, ALICE, 400),
    (8, "POST", "/v1/embeddings", {}, ALICE, 501),
    (9, "GET", "/nowhere", None, ALICE, 404),
    (10, "DELETE", "/v1/models", None, ALICE, 405),
    (11, "GET", "/v1/models", None, "wrong", 401),
    (12, "GET", "/metrics", None, "wrong", 401),
    (13, "HEAD", "/v1/models", None, ALICE, 200)])
def test_every_http_request_has_one_line(keyed, number, method, path, body, key, status):
    name = f"line-{number}"
    reply = requests.request(method, keyed.url + path + "?secret=in-the-query", json=body,
                             headers=bearer(key, **{"X-Request-Id": name}), timeout=30)
    assert reply.status_code == status
    line, = lines_of(keyed, name)
    assert f" {method} {path} id={name} status={status} client=127.0.0.1 " in line
    owner = {ALICE: "alice", UNNAMED: "key2"}.get(key)
    assert f" key={owner} " in line if owner else " key=" not in line
    assert f" out={len(reply.content)}" in line
    assert (" error=" in line) == (status >= 400)
    if status == 200 and path == "/v1/completions":
        assert re.search(r" prompt=\d+ cached=\d+ completion=3 queue_ms=[\d.]+ ttft_ms=[\d.]+ "
                         r"density=1.000 finish=length$", line), line
    for secret in ("in-the-query", ALICE, UNNAMED, "wrong", "wombat-7261"):
        assert secret not in keyed.read_log()


def test_every_grpc_call_has_one_line(keyed, stubs):
    messages, services = stubs
    metadata = [("x-api-key", ALICE)]
    with grpc.insecure_channel(keyed.grpc_address) as channel:
        stub = services.InferenceStub(channel)
        stub.GetLoad(messages.GetLoadRequest(), metadata=metadata)
        with pytest.raises(grpc.RpcError):
            stub.GetServerInfo(messages.GetServerInfoRequest())
        for number, fields in ((1, {"text": "The ls command"}), (2, {})):
            request = messages.GenerateRequest(request_id=f"call-{number}",
                                               stop=messages.StopRules(max_tokens=3), **fields)
            try:
                list(stub.Generate(request, metadata=metadata))
            except grpc.RpcError as error:
                assert number == 2 and error.code() == grpc.StatusCode.INVALID_ARGUMENT
    good, = lines_of(keyed, "call-1")
    assert " pbserve.v1.Inference/Generate id=call-1 status=200 client=127.0.0.1 key=alice" in good
    assert " completion=3 " in good and good.endswith(" finish=length")
    bad, = lines_of(keyed, "call-2")
    assert " status=400 client=127.0.0.1 key=alice " in bad and " error=" in bad
    loads = [line for line in keyed.read_log().splitlines() if "Inference/GetLoad " in line]
    assert len(loads) == 1 and " status=200 client=127.0.0.1 key=alice " in loads[0]
    refused = [line for line in keyed.read_log().splitlines() if "GetServerInfo " in line]
    assert len(refused) == 1 and " status=401 client=127.0.0.1 total_ms=" in refused[0]


def test_a_request_that_is_given_up_says_how_far_it_came(keyed):
    body = {"prompt": "The ls command", "max_tokens": 30000, "ignore_eos": True, "stream": True,
            "request_id": "left-1"}
    with requests.post(keyed.url + "/v1/completions", json=body, headers=bearer(ALICE),
                       stream=True, timeout=30) as reply:
        next(reply.iter_lines())
    line, = lines_of(keyed, "left-1")
    assert " status=499 client=127.0.0.1 key=alice " in line
    assert re.search(r" completion=[1-9]\d* ", line) and "left" in line


# The id is the client's to find its request by: also the one that is refused.
@pytest.mark.parametrize("number, fields, status", [
    (1, {"n": 2}, 400), (2, {"model": "nobody"}, 404), (3, {"prompt": []}, 400),
    (4, {"max_tokens": 0}, 400)])
def test_a_refused_request_keeps_the_id_of_its_body(keyed, number, fields, status):
    name = f"body-{number}"
    reply = requests.post(keyed.url + "/v1/completions", headers=bearer(ALICE), timeout=30,
                          json={"prompt": "x", "request_id": name} | fields)
    assert reply.status_code == status and reply.headers["X-Request-Id"] == name
    line, = lines_of(keyed, name)
    assert f" status={status} " in line


def test_an_id_that_is_none_is_not_taken(keyed):
    reply = requests.post(keyed.url + "/v1/completions", headers=bearer(ALICE), timeout=30,
                          json={"prompt": "x", "request_id": "a b\nforged"})
    assert reply.status_code == 400
    assert re.fullmatch("[0-9a-f]{24}", reply.headers["X-Request-Id"])
    assert len(lines_of(keyed, reply.headers["X-Request-Id"])) == 1


def test_probes_have_lines_at_debug_level_only(keyed):
    def probe(server):
        for path in ("/health", "/ready", "/metrics"):
            reply = requests.get(server.url + path, timeout=30,
                                 headers=bearer(ALICE, **{"X-Request-Id": "probe" + path[1:]}))
            assert reply.status_code == 200
        requests.get(server.url + "/version", timeout=30,
                     headers=bearer(ALICE, **{"X-Request-Id": "after"}))
        lines_of(server, "after")
        return server.read_log().count("id=probe")

    assert probe(keyed) == 0
    with Server("--log-level", "debug") as talkative:
        assert probe(talkative) == 3


def test_every_line_of_a_json_log_is_an_object(json_log):
    body = {"prompt": "The ls command", "max_tokens": 3, "request_id": "json-1"}
    requests.post(json_log.url + "/v1/completions", json=body, headers=bearer(ALICE), timeout=30)
    requests.get(json_log.url + "/no%22/\"x", headers={"X-Request-Id": "json-2"}, timeout=30)
    json_log.wait_for_log("json-2")
    lines = [json.loads(line) for line in json_log.read_log().splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("info", "warning") and line["message"]
    good, = [line for line in lines if line.get("request_id") == "json-1"]
    assert good["message"] == "request" and good["client"] == "127.0.0.1"
    assert (good["key"], good["method"], good["route"]) == ("alice", "POST", "/v1/completions")
    assert (good["status"], good["completion_tokens"], good["finish_reason"]) == (200, 3, "length")
    assert good["prompt_tokens"] > 0 and good["cached_tokens"] == 0 and good["density"] == 1
    assert 0 <= good["queue_ms"] <= good["ttft_ms"] <= good["total_ms"]
    bad, = [line for line in lines if line.get("request_id") == "json-2"]
    assert bad["status"] == 401 and "API key" in bad["error"] and "key" not in bad


def test_a_flood_of_refusals_writes_so_many_lines_a_second():
    """And what is left out is counted: no request is forgotten."""
    with Server("--api-key", ALICE, "--set", "server.max_log_lines_per_s=10") as server:
        begin = time.monotonic()
        with requests.Session() as session:
            for _ in range(300):
                assert session.get(server.url + "/v1/models", timeout=30).status_code == 401
        seconds = time.monotonic() - begin
        time.sleep(1)
        requests.get(server.url + "/v1/models", headers={"X-Request-Id": "last"}, timeout=30)
        lines_of(server, "last")
        num_lines = server.read_log().count("GET /v1/models")
        left_out = re.findall(r"(\d+) request lines were left out: more than "
                              r"server.max_log_lines_per_s = 10", server.read_log())
        assert 10 <= num_lines <= 10 * (seconds + 2)
        assert sum(map(int, left_out)) + num_lines == 301


def test_the_request_log_can_be_switched_off():
    with Server("--disable-log-requests") as server:
        server.complete("x", request_id="unseen-1")
        assert requests.get(server.url + "/nowhere", timeout=30).status_code == 404
    assert "unseen-1" not in server.read_log() and "nowhere" not in server.read_log()


def test_a_request_that_a_shutdown_cuts_off_has_its_line():
    with Server("--shutdown-timeout", "0.5") as server:
        body = {"prompt": "x", "max_tokens": 30000, "ignore_eos": True, "stream": True,
                "request_id": "cut-1"}
        with requests.post(server.url + "/v1/completions", json=body, stream=True,
                           timeout=30) as reply:
            lines = reply.iter_lines()
            next(lines)
            server.stop()
    line, = lines_of(server, "cut-1")
    assert " status=503 " in line and " prompt=" in line and "shut down" in line
    assert server.read_log().rstrip().endswith("stopped")


def test_what_the_grpc_library_says_is_in_the_log_s_format(monkeypatch):
    monkeypatch.setenv("GRPC_VERBOSITY", "debug")
    monkeypatch.setenv("GRPC_TRACE", "http")
    with Server("--log-format", "json", "--log-level", "debug") as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
        server.stop()
    lines = [json.loads(line) for line in server.read_log().splitlines()]
    assert any(re.match(r"gRPC \S+\.cc:\d+: ", line["message"]) for line in lines)
