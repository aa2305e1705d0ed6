"""Folders as they are published: keys of other runtimes, vocabularies with gaps."""

import json
import os
import pathlib

import pytest

from server_process import ROOT, Server

DEMO = ROOT / "models" / "demo"
# Real models are not part of the repository: each is a folder in here, under the name below.
REAL_MODELS = pathlib.Path(os.environ.get("PBSERVE_REAL_MODELS", ROOT / "build" / "real-models"))
# As published beside the weights, for a runtime in the browser.
JS_CONFIG = {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}}
GAPS = "the vocabulary has no token for {} of the 256 byte values"


def edited_copy(source, folder, **edits):
    """`folder` with links to the files of `source`, but those in `edits` (without .json) changed
    by the function that they name."""
    for file in source.iterdir():
        edit = edits.get(file.stem) if file.suffix == ".json" else None
        if edit is None:
            (folder / file.name).symlink_to(file)
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        edit(content)
        (folder / file.name).write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


def drop_control_bytes(tokenizer):
    for spelling in ("\u0104", "\u0106"):  # of the bytes 4 and 6
        del tokenizer["model"]["vocab"][spelling]


def test_bytes_without_a_token_are_dropped_and_said_once(tmp_path):
    folder = edited_copy(DEMO, tmp_path, tokenizer=drop_control_bytes,
                         config=lambda config: config.update(JS_CONFIG))
    with Server(model=folder) as server:
        assert server.read_log().count(GAPS.format(2)) == 1
        plain = server.complete("The ls command")
        gapped = server.complete("The\u0004 ls command\u0006")  # they cut no word
        assert gapped["choices"] == plain["choices"]
        assert gapped["usage"] == plain["usage"]

        empty = server.post("/v1/completions", {"prompt": "\u0004\u0006"})
        assert empty.status_code == 400
        assert "the vocabulary has none for its text" in empty.json()["error"]["message"]
        assert empty.json()["error"]["param"] == "prompt"
        assert server.post("/tokenize", {"prompt": "\u0004"}).json()["tokens"] == []


def test_a_key_that_may_change_the_arithmetic_still_stops_the_start(tmp_path):
    folder = edited_copy(DEMO, tmp_path, config=lambda config: config.update({"new_norm": True}))
    with pytest.raises(AssertionError, match="'new_norm' is not known"):
        Server(model=folder)


def test_smollm2_is_served_as_published(tmp_path):
    source = REAL_MODELS / "smollm2-135m"
    if not source.is_dir():
        pytest.skip(f"{source} is not there; PBSERVE_REAL_MODELS names another folder")
    folder = edited_copy(source.resolve(), tmp_path,
                         config=lambda config: config.update(JS_CONFIG | {"is_llama_config": True}))
    with Server(model=folder) as server:
        assert server.read_log().count(GAPS.format(21)) == 1
        question = [{"role": "user", "content": "What is the capital of\u0004 France?"}]
        reply = server.post("/v1/chat/completions",
                            {"messages": question, "temperature": 0, "max_tokens": 24})
        assert reply.status_code == 200, reply.text
        assert "Paris" in reply.json()["choices"][0]["message"]["content"]
