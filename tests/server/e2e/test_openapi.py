"""The server does what /openapi.json says, and says what it does.

PBSERVE_OPENAPI_EXAMPLES: requests that are made up for each operation; the default is small.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import jsonschema_rs
import pytest
import requests

import openapi_rules
from raw_http import RawConnection
from server_process import Server

HERE = pathlib.Path(__file__).parent
EXAMPLES = os.environ.get("PBSERVE_OPENAPI_EXAMPLES", "10")
KEY = {"Authorization": "Bearer secret"}
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def keyed():
    with Server("--api-key", "secret", "--max-model-len", str(openapi_rules.CONTEXT), "--set",
                "contexts.max_contexts=1000000", "--set",
                "contexts.max_contexts_per_key=1000000") as running:
        yield running
        running.wait_until_idle(headers=KEY)


@pytest.fixture(scope="module")
def document(keyed):
    return requests.get(keyed.url + "/openapi.json", headers=KEY, timeout=30).json()


def test_schemathesis_finds_nothing(keyed, tmp_path):
    """In positive and in negative mode: valid requests are accepted and wrong ones refused, and
    every answer is one of those that are described, with its status, headers, media type and
    schema; of event streams every event."""
    run = subprocess.run(
        [sys.executable, "-B", "-m", "schemathesis.cli",
         "--config-file", HERE / "schemathesis.toml", "run", keyed.url + "/openapi.json",
         "--header", "Authorization: Bearer secret", "--mode", "all", "--max-examples", EXAMPLES,
         "--suppress-health-check", "too_slow", "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "openapi_rules", "PYTHONPATH": str(HERE)})
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr
    assert "No issues found" in run.stdout


def validator(document, schema):
    """Of a schema in the document, which its references lead back into."""
    return jsonschema_rs.validator_for({"components": document["components"], **schema})


def described(document, path, media_type):
    response = document["paths"][path]["post"]["responses"]["200"]
    return response["content"][media_type]["schema"]


STREAMING = {"stream": True, "max_tokens": 8, "include_metrics": True, "return_progress": True,
             "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


@pytest.mark.parametrize("path, body", [("/v1/completions", {"prompt": "The ls command"}),
                                        ("/v1/chat/completions", CHAT)])
def test_the_events_of_a_stream_are_described(keyed, document, path, body):
    reply = keyed.post(path, body | STREAMING, headers=KEY)
    assert reply.status_code == 200, reply.text
    of_data = described(document, path, "text/event-stream")["properties"]["data"]["anyOf"]
    assert of_data[1] == {"const": "[DONE]"}
    chunks = validator(document, of_data[0]["contentSchema"])
    payloads = [event.removeprefix("data: ") for event in reply.text.split("\n\n")
                if event.startswith("data: ")]
    assert payloads.pop() == "[DONE]"
    seen = set()
    for payload in payloads:
        chunk = json.loads(payload)
        seen.update(chunk)
        chunks.validate(chunk)
    assert {"prompt_progress", "usage", "metrics"} <= seen


@pytest.mark.parametrize("path, body", [("/v1/completions", {"prompt": "The ls command"}),
                                        ("/v1/chat/completions", CHAT)])
def test_a_whole_answer_is_described(keyed, document, path, body):
    reply = keyed.post(path, body | {"max_tokens": 4, "include_metrics": True}, headers=KEY)
    answers = validator(document, described(document, path, "application/json"))
    answers.validate(reply.json())
    assert not answers.is_valid(reply.json() | {"unheard_of": 1})


@contextlib.contextmanager
def half_a_body(server, num_bytes):
    """All but its last byte."""
    with RawConnection(server) as connection:
        connection.send("POST /tokenize HTTP/1.1\r\nHost: x\r\n"
                        f"Content-Length: {num_bytes}\r\n\r\n")
        connection.send(b" " * (num_bytes - 1))
        time.sleep(0.5)  # until it is charged: beside another it may find no room itself
        yield


@pytest.mark.parametrize("num_bytes, status", [(5000, 413), (2000, 429)])
def test_an_error_that_no_example_brings_about_is_described(document, num_bytes, status):
    with Server("--set", "http.max_body_bytes=4096", "--set", "grpc.max_message_bytes=4096",
                "--set", "server.max_buffered_bytes=4096") as server, half_a_body(server, 4000):
        reply = requests.post(server.url + "/tokenize", data=b" " * num_bytes, timeout=30)
    assert reply.status_code == status
    validator(document, {"$ref": "#/components/schemas/Error"}).validate(reply.json())
    assert f"Error{status}" in document["paths"]["/tokenize"]["post"]["responses"][str(status)][
        "$ref"]
    headers = document["components"]["responses"][f"Error{status}"]["headers"]
    assert all(name in reply.headers for name in headers)
    assert ("Retry-After" in headers) == ("Retry-After" in reply.headers)
