"""The render routes: the tokens and parameters of a request, and nothing generated."""

import pytest

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def test_a_rendered_chat_is_the_prompt_that_would_run(server):
    before = server.metrics()["pbserve:prompt_tokens_total"]
    request = CHAT | {"temperature": 0, "top_p": 0.9, "max_tokens": 12, "seed": 7,
                      "stop": ["never"], "cache_salt": "salt", "request_id": "mine"}
    reply = server.post("/v1/chat/completions/render", request)
    assert reply.status_code == 200, reply.text
    rendered = reply.json()
    assert server.metrics()["pbserve:prompt_tokens_total"] == before
    assert rendered["request_id"] == "chatcmpl-mine"
    assert rendered["cache_salt"] == "salt"
    assert rendered["model"] == "demo"
    sampling = rendered["sampling_params"]
    assert (sampling["temperature"], sampling["top_p"]) == (0, 0.9)
    assert (sampling["seed"], sampling["max_tokens"]) == (7, 12)
    assert sampling["stop"] == ["never"]
    assert rendered["token_ids"] == server.post("/tokenize", CHAT).json()["tokens"]
    answer = server.post("/v1/chat/completions", request).json()
    assert answer["usage"]["prompt_tokens"] == len(rendered["token_ids"])
    by_ids = server.complete(rendered["token_ids"], max_tokens=12)
    assert by_ids["choices"][0]["text"] == answer["choices"][0]["message"]["content"]


def test_rendered_completions_are_a_list_with_the_defaults_in_force(server):
    reply = server.post("/v1/completions/render", {"prompt": "The ls command"})
    assert reply.status_code == 200, reply.text
    (rendered,) = reply.json()
    assert rendered["request_id"].startswith("cmpl-")
    assert rendered["token_ids"] == server.post(
        "/tokenize", {"prompt": "The ls command"}).json()["tokens"]
    assert rendered["sampling_params"]["max_tokens"] == 16
    assert rendered["sampling_params"]["seed"] is None
    assert (rendered["stream"], rendered["stream_options"]) == (False, None)
    streaming = server.post("/v1/completions/render", {
        "prompt": [1, 2], "stream": True, "stream_options": {"include_usage": True}}).json()[0]
    assert streaming["token_ids"] == [1, 2]
    assert streaming["stream_options"]["include_usage"] is True
    chat = server.post("/v1/chat/completions/render", CHAT).json()
    assert chat["sampling_params"]["max_tokens"] == 32768 - len(chat["token_ids"])


@pytest.mark.parametrize("fields, param", [
    ({"temperature": 3}, "temperature"), ({"max_tokens": 0}, "max_tokens"), ({"n": 2}, "n"),
    ({"max_tokens": 40000}, "max_tokens"), ({"model": "other"}, "model"), ({"foo": 1}, "foo"),
    ({"stop": ""}, "stop"), ({"request_id": "a b"}, "request_id")])
def test_what_would_not_run_is_not_rendered(server, fields, param):
    for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", CHAT)):
        refused = server.post(path, body | fields)
        rendered = server.post(path + "/render", body | fields)
        assert rendered.status_code == refused.status_code >= 400
        assert rendered.json() == refused.json()
        assert rendered.json()["error"]["param"] == param
