"""cache_hold_s: a conversation's pages stay while others fill the cache, over HTTP and gRPC."""

import random

import grpc
import pytest
import requests

from server_process import Server

PAGE = 128
NUM_PAGES = 32
PAGE_BYTES = PAGE * 4096 + 4096  # of the demo model: K, V and moments
FLAGS = ("--max-model-len", "4096", "--kv-cache-memory-bytes", str(NUM_PAGES * PAGE_BYTES),
         "--set", "scheduler.max_cache_hold_s=600")


@pytest.fixture
def small():
    with Server(*FLAGS) as running:
        yield running


def made_up(num_tokens, seed):
    return random.Random(seed).choices(range(10, 4000), k=num_tokens)


def ask(server, prompt, **fields):
    return server.complete(prompt, max_tokens=1, sparse_attention={"mode": "dense"},
                           **fields)["usage"]


def fill(server):
    for seed in range(100, 106):
        ask(server, made_up(2000, seed))


def test_a_held_prompt_outlives_what_fills_the_cache(small):
    prompt = made_up(1300, 1)
    usage = ask(small, prompt)
    assert "cache_held_tokens" not in usage
    fill(small)
    usage = ask(small, prompt, cache_hold_s=300)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["cache_held_tokens"] == 1280
    fill(small)
    assert ask(small, prompt)["prompt_tokens_details"]["cached_tokens"] == 1280
    metrics = small.metrics()
    assert (metrics["pbserve:kv_cache_holds"], metrics["pbserve:kv_cache_held_pages"]) == (1, 10)
    assert metrics["pbserve:prefix_cache_salts"] == 1

    assert ask(small, made_up(1300, 2), cache_hold_s=300)["cache_held_tokens"] == 6 * PAGE
    assert small.metrics()["pbserve:kv_cache_cut_holds_total"] == 1
    ask(small, made_up(4000, 3), cache_salt="tenant")  # needs every page
    metrics = small.metrics()
    assert metrics["pbserve:kv_cache_broken_holds_total"] == 2
    assert metrics["pbserve:kv_cache_held_pages"] == 0
    assert metrics["pbserve:prefix_cache_largest_salt_pages"] == 31


@pytest.mark.parametrize("value, message", [
    (601, "cache_hold_s is 601, must be in [0, 600]"),
    (-0.5, "cache_hold_s is -0.5, must be in [0, 600]"),
    ("60", "cache_hold_s"),
])
def test_a_hold_out_of_bounds_is_refused(small, value, message):
    reply = small.post("/v1/completions", {"prompt": "x", "cache_hold_s": value})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == "cache_hold_s" and message in error["message"]


def test_the_description_names_the_longest_hold(small):
    fields = requests.get(small.url + "/openapi.json", timeout=30).json()["components"]["schemas"][
        "CompletionRequest"]["properties"]
    assert fields["cache_hold_s"]["maximum"] == 600


def test_a_server_without_holds_refuses_them():
    with Server(*FLAGS, "--set", "scheduler.max_cache_hold_s=0") as server:
        reply = server.post("/v1/completions", {"prompt": "x", "cache_hold_s": 5})
        assert reply.status_code == 400
        assert "must be 0: this server holds no pages" in reply.json()["error"]["message"]
        assert server.complete("x", cache_hold_s=0)["usage"]["completion_tokens"] > 0


def test_over_grpc(small, stubs):
    messages, services = stubs
    with grpc.insecure_channel(small.grpc_address) as channel:
        stub = services.InferenceStub(channel)

        def generate(hold_s):
            return list(stub.Generate(messages.GenerateRequest(
                token_ids=messages.TokenIds(ids=made_up(1300, 1)), cache_hold_s=hold_s,
                stop=messages.StopRules(max_tokens=1))))[-1].finished.usage

        assert not generate(0).HasField("cache_held_tokens")
        assert generate(60).cache_held_tokens == 1280
        with pytest.raises(grpc.RpcError) as error:
            generate(601)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.value.details() == "cache_hold_s is 601, must be in [0, 600]"
