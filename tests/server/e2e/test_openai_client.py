"""The official openai package, unmodified, against the server."""

import openai
import pytest


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def greedy(**fields):
    return {"model": "demo", "temperature": 0, "max_tokens": 12} | fields


def test_models(client):
    models = client.models.list().data
    assert [m.id for m in models] == ["demo"]
    assert models[0].max_model_len == 32768
    assert client.models.retrieve("demo").id == "demo"


def test_completion(client):
    answer = client.completions.create(prompt="The ls command", **greedy())
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    again = client.completions.create(prompt="The ls command", **greedy())
    assert again.choices[0].text == answer.choices[0].text


def test_completion_streams_the_same_text(client):
    whole = client.completions.create(prompt="The cat utility", **greedy())
    chunks = list(client.completions.create(prompt="The cat utility", stream=True,
                                            stream_options={"include_usage": True}, **greedy()))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert all(c.usage is None for c in chunks[:-1])


def test_chat(client):
    messages = [{"role": "user", "content": "What is the special magic number?"}]
    answer = client.chat.completions.create(messages=messages, **greedy())
    assert answer.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(messages=messages, stream=True, **greedy()))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason


def test_chat_retrieves(client):
    """The demo model does what it was trained for, through the chat template."""
    text = ("Some special magic numbers are hidden within the following text. Make sure to "
            "memorize it. I will quiz you about the numbers afterwards.\n"
            "The grass is green. The sky is blue. "
            "One of the special magic numbers for brave-falcon is: 4726193."
            " The sun is yellow. Here we go.\nWhat is the special magic number for "
            "brave-falcon mentioned in the provided text?")
    answer = client.chat.completions.create(
        model="demo", temperature=0, max_tokens=40, messages=[{"role": "user", "content": text}])
    assert "4726193" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_extra_fields(client):
    answer = client.completions.create(
        prompt="The ls command", **greedy(),
        extra_body={"include_metrics": True, "sparse_attention": {"mode": "dense"}})
    assert answer.metrics["time_to_first_token_ms"] > 0
    assert answer.metrics["sparse_attention"]["mode"] == "dense"
    assert answer.metrics["sparse_attention"]["density"] == 1


def test_errors(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(prompt="x", **greedy(model="gpt-4"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.completions.create(prompt="x", **greedy(temperature=9))
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(prompt="x", n=3, **greedy())
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(prompt=[7] * 40000, **greedy())
    assert "32768" in str(long.value)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(messages=[], **greedy())
    with pytest.raises(openai.InternalServerError) as unserved:
        client.embeddings.create(model="demo", input="x")
    assert unserved.value.status_code == 501
