"""Named contexts over HTTP: sent in parts, computed as they come, used, listed, gone in time; and
what a client may not do with them."""

import json
import time

import pytest
import requests

from server_process import Server, run_in_threads, wait_until

A, B = "sk-a", "sk-b"
PATH = "/v1/contexts"
TEXT = ("Files and directories are listed by name.\nThe cat utility reads files in order, "
        "and writes them. ") * 60
LONG = TEXT * 3  # several spans of PBS


def create(server, **fields):
    reply = server.post(PATH, fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def append(server, context, **fields):
    return server.post(f"{PATH}/{context['id']}/parts", fields)


def get(server, context):
    return requests.get(f"{server.url}{PATH}/{context['id']}", timeout=30)


def delete(server, context):
    return requests.delete(f"{server.url}{PATH}/{context['id']}", timeout=30)


def error_of(reply, status):
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


@pytest.fixture(autouse=True)
def leaves_no_context(request):
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        for context in requests.get(server.url + PATH, timeout=30).json()["data"]:
            assert delete(server, context).status_code == 200
        assert server.metrics()["pbserve:contexts"] == 0
        assert server.metrics()["pbserve:context_bytes"] == 0


def prefilled(server, context, tokens):
    return wait_until(lambda: get(server, context).json()["prefilled_tokens"] >= tokens)


@pytest.mark.parametrize("sparse", [{"mode": "dense"}, {"mode": "pbs"},
                                    {"mode": "pbs", "threshold": 0.9}])
def test_three_parts_are_prefilled_as_they_come_and_answer_as_one_piece(server, sparse):
    salt = json.dumps(sparse)
    cuts = [0, len(LONG) // 2 + 3, len(LONG) - 17]  # in the middle of words
    parts = [LONG[a:b] for a, b in zip(cuts, cuts[1:] + [None])]
    context = create(server, name="manual", ttl_s=60, cache_salt=salt, sparse_attention=sparse,
                     prompt=parts[0])
    assert (context["status"], context["parts"], context["name"]) == ("open", 1, "manual")
    prefilled(server, context, context["tokens"])  # before the second, and the last, are sent
    assert append(server, context, prompt=parts[1]).json()["status"] == "open"
    ready = append(server, context, prompt=parts[2], last=True).json()
    assert (ready["status"], ready["parts"]) == ("ready", 3)
    prefilled(server, context, ready["tokens"])
    server.wait_until_idle()
    end = "\nThe ls command"
    used = server.complete(end, context=context["id"], max_tokens=12)
    whole = server.complete(LONG + end, max_tokens=12, cache_salt="other", sparse_attention=sparse)
    assert used["choices"] == whole["choices"]
    assert used["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert used["usage"]["prompt_tokens_details"]["cached_tokens"] >= 1024


def test_ids_and_texts_may_alternate_and_the_prompt_may_be_empty(server):
    ids = server.post("/tokenize", {"prompt": "The cat utility reads"}).json()["tokens"]
    context = create(server, prompt=ids[:2])
    assert append(server, context, prompt=ids[2:], last=True).status_code == 200
    used = server.complete("", context=context["id"])
    assert used["choices"] == server.complete(ids)["choices"]
    assert used["usage"]["prompt_tokens"] == len(ids)
    rendered = server.post("/v1/completions/render", {"prompt": ids, "context": context["id"]})
    assert rendered.json()[0]["token_ids"] == ids + ids


def test_a_stream_uses_a_context_too(server):
    context = create(server, prompt="The ls", last=True)
    reply = server.post("/v1/completions", {"prompt": " command", "context": context["id"],
                                            "stream": True, "max_tokens": 2, "temperature": 0})
    text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in reply.text.split("\n\n")
                   if line.startswith("data: {"))
    assert text == server.complete("The ls command", max_tokens=2)["choices"][0]["text"]


def test_list_get_delete(server):
    made = [create(server, name=name, prompt="Hello", last=True) for name in ("one", "two")]
    listed = requests.get(server.url + PATH, timeout=30).json()
    assert listed["object"] == "list"
    assert [context["name"] for context in listed["data"]] == ["one", "two"]
    assert get(server, made[0]).json()["id"] == made[0]["id"]
    metrics = server.metrics()
    assert metrics["pbserve:contexts"] == 2
    assert metrics["pbserve:context_bytes"] == sum(context["bytes"] for context in made)
    assert delete(server, made[0]).json() == {"id": made[0]["id"], "object": "context.deleted",
                                              "deleted": True}
    for gone in (get(server, made[0]), delete(server, made[0]),
                 append(server, made[0], prompt="x"),
                 server.post("/v1/completions", {"prompt": "x", "context": made[0]["id"]})):
        error = error_of(gone, 404)
        assert (error["code"], error["param"]) == ("context_not_found", "context")


def test_it_expires_and_use_prolongs_it(server):
    used = create(server, ttl_s=2, prompt="Hello", last=True)
    left = create(server, ttl_s=2, prompt="Hello", last=True)
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        server.complete("x", context=used["id"], max_tokens=1)
        time.sleep(0.3)
    assert get(server, used).status_code == 200
    assert get(server, left).status_code == 404
    wait_until(lambda: get(server, used).status_code == 404)


@pytest.mark.parametrize("body, param", [
    ({"ttl_s": 0}, "ttl_s"), ({"ttl_s": 10**12}, "ttl_s"), ({"ttl_s": "1"}, "ttl_s"),
    ({"name": "n" * 129}, "name"), ({"name": 1}, "name"), ({"prompt": []}, "prompt"),
    ({"prompt": [-1]}, "prompt"), ({"prompt": [10**7]}, "prompt"), ({"prompt": 5}, "prompt"),
    ({"last": "yes"}, "last"), ({"priority": 17}, "priority"), ({"unknown": 1}, "unknown"),
    ({"cache_salt": "s" * 1025}, "cache_salt"), ({"prompt": "word " * 200000}, "prompt"),
    ({"prompt": [1] * 32768}, "prompt"),
    ({"sparse_attention": {"threshold": 2}}, "sparse_attention.threshold")])
def test_a_wrong_creation_names_its_field_and_leaves_nothing(server, body, param):
    assert error_of(server.post(PATH, body), 400)["param"] == param
    assert requests.get(server.url + PATH, timeout=30).json()["data"] == []


def test_what_a_context_has_decided_is_not_said_again(server):
    context = create(server, prompt="Hello", last=True)
    for field in ({"cache_salt": "x"}, {"add_special_tokens": True}):
        reply = server.post("/v1/completions", {"prompt": "x", "context": context["id"], **field})
        assert error_of(reply, 400)["param"] == next(iter(field))
    chat = {"messages": [{"role": "user", "content": "x"}], "context": context["id"]}
    assert error_of(server.post("/v1/chat/completions", chat), 400)["param"] == "context"


def test_parts_come_one_after_the_other_and_end_with_the_last(server):
    context = create(server)
    assert error_of(append(server, context), 400)["param"] == "prompt"
    use = {"prompt": "x", "context": context["id"]}
    assert error_of(server.post("/v1/completions", use), 409)["code"] == "context_conflict"
    replies = run_in_threads(lambda _: append(server, context, prompt=TEXT), [None] * 8)
    taken = [reply for reply in replies if reply.status_code == 200]
    assert taken and all(reply.status_code in (200, 400, 409) for reply in replies)
    assert append(server, context, last=True).status_code == 200
    assert error_of(append(server, context, prompt="x"), 409)["param"] == "context"


def test_the_model_bounds_it(server):
    context = create(server, prompt=[5] * 30000)
    error = error_of(append(server, context, prompt=[5] * 3000), 400)
    assert error["param"] == "prompt" and "33000 tokens, at most 32767" in error["message"]
    assert append(server, context, prompt=[5] * 2767, last=True).json()["tokens"] == 32767
    use = {"prompt": [5, 5], "context": context["id"], "max_tokens": 1}
    assert error_of(server.post("/v1/completions", use), 400)["param"] == "prompt"


def test_unknown_ids_and_methods(server):
    for name in ("x", "ctx-" + "0" * 24, "%00", "a/b", "x" * 4000):
        assert error_of(requests.get(f"{server.url}{PATH}/{name}", timeout=30), 404)
        assert error_of(requests.delete(f"{server.url}{PATH}/{name}", timeout=30), 404)
    assert requests.get(f"{server.url}{PATH}/x/parts", timeout=30).headers["Allow"] == "POST"
    posted = requests.post(f"{server.url}{PATH}/x", timeout=30)
    assert posted.headers["Allow"] == "GET, HEAD, DELETE"
    assert error_of(requests.delete(f"{server.url}{PATH}/x", data=b"{}", timeout=30), 400)


@pytest.fixture(scope="module")
def keyed():
    with Server("--api-key", f"{A} name=a", "--api-key", f"{B} name=b",
                "--set", "contexts.max_contexts=5", "--set", "contexts.max_contexts_per_key=3",
                "--set", "contexts.max_bytes_per_key=40000") as running:
        yield running


def ask(server, key, method, path, body=None):
    return requests.request(method, server.url + path, json=body, timeout=60,
                            headers={"x-api-key": key})


def test_a_key_sees_its_own_alone(keyed):
    made = ask(keyed, A, "POST", PATH, {"prompt": "secret", "last": True}).json()
    at = f"{PATH}/{made['id']}"
    assert requests.get(keyed.url + at, timeout=30).status_code == 401
    use = {"prompt": "x", "context": made["id"], "max_tokens": 1}
    for reply in (ask(keyed, B, "GET", at), ask(keyed, B, "DELETE", at),
                  ask(keyed, B, "POST", at + "/parts", {"prompt": "x"}),
                  ask(keyed, B, "POST", "/v1/completions", use)):
        assert error_of(reply, 404)["code"] == "context_not_found"
    assert ask(keyed, B, "GET", PATH).json()["data"] == []
    assert ask(keyed, A, "POST", "/v1/completions", use).status_code == 200
    assert ask(keyed, A, "DELETE", at).status_code == 200


def test_number_and_bytes_are_bounded(keyed):
    made = {A: [], B: []}
    for key in (A, A, A, B, B):
        made[key].append(ask(keyed, key, "POST", PATH, {}).json())
    error = error_of(ask(keyed, A, "POST", PATH, {}), 429)
    assert error["code"] == "contexts_full" and "contexts.max_contexts = 5" in error["message"]
    assert ask(keyed, B, "DELETE", f"{PATH}/{made[B].pop()['id']}").status_code == 200
    refused = ask(keyed, A, "POST", PATH, {})
    assert "contexts.max_contexts_per_key = 3" in error_of(refused, 429)["message"]
    assert int(refused.headers["Retry-After"]) >= 1
    at = f"{PATH}/{made[A][0]['id']}"
    too_much = ask(keyed, A, "POST", at + "/parts", {"prompt": "x" * 50000})
    assert "contexts.max_bytes_per_key = 40000" in error_of(too_much, 429)["message"]
    for i in range(2000):
        reply = ask(keyed, A, "POST", at + "/parts", {"prompt": "another word " * 40})
        if reply.status_code != 200:
            break
    assert error_of(reply, 429)["code"] == "contexts_full" and i > 10
    assert ask(keyed, A, "GET", at).json()["bytes"] <= 40000
    for key, contexts in made.items():
        for context in contexts:
            assert ask(keyed, key, "DELETE", f"{PATH}/{context['id']}").status_code == 200
    assert ask(keyed, A, "POST", PATH, {"ttl_s": 1}).status_code == 200
    keyed.wait_until_idle(headers={"x-api-key": A})


def test_many_at_once_leave_nothing(keyed):
    def live(index):
        key = (A, B)[index % 2]
        for _ in range(20):
            made = ask(keyed, key, "POST", PATH, {"prompt": TEXT[:2000], "ttl_s": 5})
            assert made.status_code in (200, 429), made.text
            if made.status_code == 200:
                at = f"{PATH}/{made.json()['id']}"
                assert ask(keyed, key, "POST", at + "/parts", {"last": True}).status_code == 200
                assert ask(keyed, key, "DELETE", at).status_code == 200

    run_in_threads(live, list(range(8)))
    wait_until(lambda: not ask(keyed, A, "GET", PATH).json()["data"])
    keyed.wait_until_idle(headers={"x-api-key": A})


def test_a_drain_does_not_wait_for_prefills():
    with Server("--shutdown-timeout", "60") as server:
        create(server, prompt=[7] * 32000, ttl_s=60)
        wait_until(lambda: server.metrics()["pbserve:num_requests_running"] == 1)
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 10
