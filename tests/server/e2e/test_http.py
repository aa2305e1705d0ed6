"""Routes, fields and their effects, over plain HTTP."""

import json

import pytest
import requests

from raw_http import RawConnection
from server_process import DEVICE, ROOT, Server


def sse_events(reply):
    """The payloads of an event stream; comments as (": ...",)."""
    for block in reply.iter_content(None):
        for event in block.decode().split("\n\n"):
            if event.startswith("data: "):
                payload = event[len("data: "):]
                yield payload if payload == "[DONE]" else json.loads(payload)
            elif event:
                yield (event,)


def test_plain_routes(server):
    for path in ("/health", "/healthz", "/ready", "/readyz"):
        assert requests.get(server.url + path, timeout=30).status_code == 200
    assert requests.get(server.url + "/version", timeout=30).json()["version"]
    info = requests.get(server.url + "/server_info", timeout=30).json()
    assert info["architecture"] == "LlamaForCausalLM"
    assert info["vocab_size"] == 4096
    assert info["device"].startswith("NVIDIA") == (DEVICE == "cuda")
    config = requests.get(server.url + "/config", timeout=30).json()
    assert config["http"]["strict_params"] is True
    load = requests.get(server.url + "/load", timeout=30).json()
    assert load["num_pages"] >= 256
    document = requests.get(server.url + "/openapi.json", timeout=30).json()
    assert "/v1/completions" in document["paths"]


def test_unknown_routes_and_methods(server):
    missing = requests.get(server.url + "/nope", timeout=30)
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "not_found_error"
    wrong = requests.get(server.url + "/v1/completions", timeout=30)
    assert wrong.status_code == 405
    assert wrong.headers["Allow"] == "POST"
    text = requests.post(server.url + "/tokenize", data="{}", timeout=30,
                         headers={"Content-Type": "text/plain"})
    assert text.status_code == 415


def test_head_answers_like_get_without_the_body(server):
    with RawConnection(server) as connection:
        for path in ("/health", "/ready", "/version", "/v1/models", "/v1/models/demo", "/nope",
                     "/openapi.json"):
            connection.send_request("GET", path)
            status, headers, body = connection.read_reply()
            connection.send_request("HEAD", path)
            head_status, head_headers, _ = connection.read_reply(has_body=False)
            assert head_status == status
            assert path == "/nope" or int(head_headers["content-length"]) == len(body)
            assert head_headers["content-type"] == headers["content-type"]
        connection.send_request("HEAD", "/v1/completions")
        status, headers, _ = connection.read_reply(has_body=False)
        assert (status, headers["allow"]) == (405, "POST")
        connection.send_request("PUT", "/health")
        status, headers, _ = connection.read_reply()
        assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_metrics_have_the_known_names(server):
    server.complete("The ls command")
    metrics = server.metrics()
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
                 "prompt_tokens_total", "generation_tokens_total",
                 "time_to_first_token_seconds_count", "inter_token_latency_seconds_count",
                 "e2e_request_latency_seconds_count", "request_success_total"):
        assert f"pbserve:{name}" in metrics, sorted(metrics)
    assert metrics["pbserve:generation_tokens_total"] >= 8


def test_tokenize_and_detokenize(server):
    text = "The ls command lists  files.\n\u00e9\u4e2d"
    reply = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == 32768
    back = server.post("/detokenize", {"tokens": reply["tokens"]}).json()
    assert back["prompt"] == text
    turn = server.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]}).json()
    rendered = server.post("/detokenize", {"tokens": turn["tokens"]}).json()["prompt"]
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    wrong = server.post("/detokenize", {"tokens": [1, 4096]})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["message"].startswith("tokens[1] is 4096, must be a token id in")
    assert wrong.json()["error"]["param"] == "tokens"


def test_ids_and_text_give_the_same(server):
    ids = server.post("/tokenize", {"prompt": "The ls command"}).json()["tokens"]
    assert server.complete(ids)["choices"] == server.complete("The ls command")["choices"]
    assert server.complete([ids])["choices"] == server.complete(["The ls command"])["choices"]


def test_seed_decides_the_draw(server):
    fields = {"temperature": 1.0, "max_tokens": 24}
    first = server.complete("The ls command", seed=1, **fields)["choices"][0]["text"]
    assert server.complete("The ls command", seed=1, **fields)["choices"][0]["text"] == first
    others = {server.complete("The ls command", seed=s, **fields)["choices"][0]["text"]
              for s in range(2, 6)}
    assert others != {first}


def test_top_k_one_is_greedy(server):
    greedy = server.complete("The ls command", max_tokens=16)["choices"][0]["text"]
    drawn = server.complete("The ls command", max_tokens=16, temperature=1.0, top_k=1)
    assert drawn["choices"][0]["text"] == greedy


def test_stop_strings(server):
    whole = server.complete("The ls command", max_tokens=24)["choices"][0]["text"]
    stop = whole[6:9]
    cut = server.complete("The ls command", max_tokens=24, stop=stop)["choices"][0]
    assert cut["text"] == whole[:whole.index(stop)]
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", stop)
    kept = server.complete("The ls command", max_tokens=24, stop=[stop, "never seen"],
                           include_stop_str_in_output=True)["choices"][0]
    assert kept["text"] == whole[:whole.index(stop) + len(stop)]


def test_stop_tokens_and_min_tokens(server):
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    natural = server.complete(prompt, max_tokens=200)
    longer = server.complete(prompt, max_tokens=200, ignore_eos=True)
    assert longer["usage"]["completion_tokens"] == 200
    if natural["choices"][0]["finish_reason"] == "stop":
        count = natural["usage"]["completion_tokens"]
        forced = server.complete(prompt, max_tokens=200, min_tokens=count + 5)
        assert forced["usage"]["completion_tokens"] >= count + 5
    ids = server.post("/tokenize", {"prompt": server.complete("The ls command")["choices"][0][
        "text"]}).json()["tokens"]
    cut = server.complete("The ls command", stop_token_ids=[ids[2]])
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] <= 3


def test_prefix_cache_is_reported_and_salted(server):
    prompt = "Files and directories. " * 100
    cold = server.complete(prompt, cache_salt="one")
    warm = server.complete(prompt, cache_salt="one")
    other = server.complete(prompt, cache_salt="two")
    cached = [r["usage"]["prompt_tokens_details"]["cached_tokens"] for r in (cold, warm, other)]
    assert cached[0] == 0 and cached[1] >= 128 and cached[2] == 0
    assert cold["choices"] == warm["choices"] == other["choices"]


def test_sparse_attention_is_controlled_and_reported(server):
    prompt = "Files and directories are listed by name. " * 250
    for mode in ("dense", "pbs"):
        answer = server.complete(prompt, include_metrics=True, max_tokens=2, cache_salt=mode,
                                 sparse_attention={"mode": mode, "threshold": 0.5})
        report = answer["metrics"]["sparse_attention"]
        assert report["mode"] == mode
        assert len(report["layer_densities"]) == 8
        assert (report["density"] == 1) == (mode == "dense")
        assert 0 < report["density"] <= 1
        assert report["forced"] is False
    assert answer["system_fingerprint"].startswith("pbserve-")


def test_a_forced_density_says_so():
    with Server("--force-density", "0.3") as forced:
        prompt = [1 + i % 4000 for i in range(8192)]
        answer = forced.complete(prompt, include_metrics=True, max_tokens=1)
        report = answer["metrics"]["sparse_attention"]
        assert report["forced"] is True
        assert report["layer_densities"][0] == pytest.approx(0.3, abs=0.01)
        assert "forced density 0.3" in requests.get(
            forced.url + "/server_info", timeout=30).json()["sparse_attention"]


def test_a_token_the_model_does_not_have_is_refused(tmp_path):
    for file in (ROOT / "models/demo").iterdir():
        (tmp_path / file.name).symlink_to(file)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 4096,
                                      "content": "<pad>"})
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with Server(model=str(tmp_path)) as server:
        answer = server.post("/v1/completions", {"prompt": "a <pad>"})
        assert answer.status_code == 400
        assert "prompt: the text has '<pad>', token 4096" in answer.text
        assert server.complete("a <b>", max_tokens=2)
        assert "the tokenizer has 4097 tokens, the model 4096" in server.read_log()


def test_stream_carries_progress_usage_and_metrics(server):
    body = {"prompt": "A long line of text. " * 400, "max_tokens": 4, "stream": True,
            "return_progress": True, "include_metrics": True, "temperature": 0,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    reply = server.post("/v1/completions", body, stream=True)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    events = list(sse_events(reply))
    assert events[-1] == "[DONE]"
    progress = [e["prompt_progress"] for e in events[:-1] if "prompt_progress" in e]
    assert progress and progress[-1]["processed"] <= progress[-1]["total"]
    counts = [e["usage"]["completion_tokens"] for e in events[:-1] if e.get("choices")]
    assert counts == sorted(counts) and counts[-1] == 4
    assert events[-2]["choices"] == []
    assert events[-2]["metrics"]["prefill_time_ms"] > 0


def test_request_ids_are_echoed(server):
    headers = {"X-Request-Id": "abc-1"}
    reply = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=headers)
    assert reply.headers["X-Request-Id"] == "abc-1"
    assert reply.json()["id"] == "cmpl-abc-1"
    server.wait_for_log("id=abc-1 status=200")
    bad = server.post("/v1/completions", {"prompt": "x"}, headers={"X-Request-Id": "a b"})
    assert bad.status_code == 400


def test_strict_params(server):
    reply = server.post("/v1/completions", {"prompt": "x", "temprature": 1})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "temprature"


@pytest.mark.parametrize("prompt", ["", [], [-1], [4096], [2**31], [1.5], "x" * 3_000_000,
                                    [5] * 32768, [[1], [2]], {"a": 1}, None])
def test_bad_prompts(server, prompt):
    reply = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == "prompt"


def test_odd_prompts_are_served(server):
    for prompt in ("a", "\0", "\U0001f600" * 50, "<|im_end|>", "x" * 3000, " " * 3000):
        server.complete(prompt, max_tokens=1)


def test_the_limit_is_exact():
    with Server("--max-model-len", "1024") as small:
        assert small.complete([5] * 1023, max_tokens=1)["usage"]["prompt_tokens"] == 1023
        answer = small.complete([5] * 1000, max_tokens=24, ignore_eos=True)
        assert answer["usage"]["completion_tokens"] == 24
        for length, max_tokens, field in ((1024, 1, "prompt"), (1000, 25, "max_tokens")):
            reply = small.post("/v1/completions", {"prompt": [5] * length,
                                                   "max_tokens": max_tokens})
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == field
            assert "1024" in reply.json()["error"]["message"]
        # The default of 16 is the server's: it is cut to what fits.
        for prompt in ([5] * 1023, [5] * 1010):
            reply = small.post("/v1/completions", {"prompt": prompt, "ignore_eos": True})
            assert reply.status_code == 200, reply.text
            assert reply.json()["usage"]["completion_tokens"] == 1024 - len(prompt)
            explicit = small.post("/v1/completions", {"prompt": prompt, "max_tokens": 16})
            assert explicit.json()["error"]["param"] == "max_tokens"
        assert small.complete([5] * 1000, max_tokens=None, ignore_eos=True)["usage"][
            "completion_tokens"] == 16
        fill = small.post("/v1/chat/completions", {"ignore_eos": True, "messages": [
            {"role": "user", "content": "Hi"}]}).json()
        assert fill["usage"]["total_tokens"] == 1024
        assert fill["choices"][0]["finish_reason"] == "length"


NUMBERS = [-1, 0, 2**31, 2**63, 2**64, 1e308, "1", "NaN", None, 1.5, True, [1], {}]


@pytest.mark.parametrize("field", ["max_tokens", "min_tokens", "top_k", "seed", "temperature",
                                   "top_p", "min_p", "n", "best_of", "logprobs", "top_logprobs",
                                   "priority", "truncate_prompt_tokens"])
def test_numbers_never_break_the_server(server, field):
    for value in NUMBERS:
        reply = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1, field: value})
        assert reply.status_code in (200, 400), (value, reply.text)
        if reply.status_code == 400:
            assert reply.json()["error"]["param"] == field, (value, reply.text)


def test_stop_limits(server):
    for stop in ([""], ["x"] * 1000, ["x" * 10000], "", [1]):
        reply = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1, "stop": stop})
        assert reply.status_code == 400, stop
        assert reply.json()["error"]["param"] == "stop", reply.text
