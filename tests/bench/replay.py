#!/usr/bin/env python3
"""How long agents wait: plays sessions of many turns, which share system prompts, pause between
turns and say all of it again in each, against any OpenAI server, and reports the times by turn.

A turn's prompt is the one before, the answer that really came, and new tokens, so that prefix
caches can work. The sessions are fixed by --seed; every run and mode has a cache salt of its own,
and a server that is started here is started anew for each mode. A server that runs keeps the pages
of the mode before until it needs them.
Appends one JSON line per mode to --results. Exits with 1 where a turn failed. Llama-3.1-8B's shape
on a GPU, dense and PBS, and a server of another kind:

  replay.py --model Llama-3.1-8B --dummy --modes dense pbs --sessions 64 --rate 1 \\
      --set device.kind=cuda model.max_model_len=131072
  replay.py --base-url http://127.0.0.1:8000 --chat --machine "H200, vLLM" --max-model-len 131072
"""

import json
import sys
import tempfile
import time
import uuid
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench_server import BenchServer, Client, commit_id
from replay_arguments import parse_arguments, workload_of
from replay_client import StreamClient
from replay_player import Played, Player
from replay_prompts import (HAYSTACK, ChatConversation, IdConversation, haystack_ids,
                            random_source, tokenize)
from replay_results import paired, paired_table, summary, table
from replay_workload import seen_share
from ruler_arms import parse_mode


@contextmanager
def server_of(arguments: Namespace):
    """Yields (client, the model's name, its settings): one that runs, or one started for this."""
    if arguments.base_url is not None:
        client = Client(arguments.base_url, arguments.api_key)
        name = arguments.model or client.get("/v1/models")["data"][0]["id"]
        yield client, name, arguments.label
        return
    settings = dict(setting.split("=", 1) for setting in arguments.settings)
    if arguments.dummy:
        settings["model.load_format"] = "dummy"
    with (tempfile.TemporaryDirectory() as scratch,
          BenchServer(arguments.server_binary, Path(arguments.model), settings,
                      Path(scratch) / "log") as server):
        yield server, server.get("/server_info")["model"], settings


def context_of(client: Client, model: str, asked: int | None) -> int:
    """max_model_len, as it was asked for or as the server says it."""
    if asked is not None:
        return asked
    for entry in client.get("/v1/models")["data"]:
        if entry["id"] == model and entry.get("max_model_len"):
            return entry["max_model_len"]
    raise ValueError(f"--max-model-len: missing, and /v1/models does not say it for {model}")


def machine_of(client: Client, arguments: Namespace) -> str:
    if arguments.machine:
        return arguments.machine
    try:
        return client.machine()
    except (RuntimeError, KeyError) as error:
        raise ValueError("--machine: missing, and the server has no /server_info") from error


def conversations(client: Client, model: str, arguments: Namespace):
    """What makes a new conversation, empty."""
    if arguments.chat:
        return partial(ChatConversation, HAYSTACK.read_text("utf-8"), arguments.chars_per_token)
    vocab_size = arguments.random_ids or (
        client.get("/server_info")["vocab_size"] if arguments.dummy else None)
    source = random_source(vocab_size) if vocab_size else haystack_ids(client, model)
    tokens_of = partial(tokenize, client, model) if arguments.answers == "tokenize" else None
    return partial(IdConversation, list(map(str, source)), tokens_of)


def fields_of(model: str, mode: str | None, salt: str, arguments: Namespace) -> dict:
    """Of every request. A chat names only what every server knows: its salt is text."""
    fields = {"model": model, "temperature": 0}
    if not arguments.chat:
        fields |= {"ignore_eos": True, "cache_salt": salt}
        if arguments.answers == "returned":
            fields["return_token_ids"] = True
    if mode is not None:
        fields["sparse_attention"] = parse_mode(mode, [""])[2]
    return fields | arguments.body


def play(mode: str | None, arguments: Namespace) -> tuple[Played, dict]:
    """One mode's run, and its line of the results."""
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with server_of(arguments) as (client, model, settings):
        workload = workload_of(arguments, context_of(client, model, arguments.max_model_len))
        sessions = workload.sessions()
        salt = uuid.uuid4().hex
        stream = StreamClient(client.url, arguments.api_key, arguments.timeout_s)
        line = {"what": "replay", "date": date, "machine": machine_of(client, arguments),
                "commit": arguments.commit or commit_id(), "settings": settings, "model": model,
                "dummy": arguments.dummy, "mode": mode, "chat": arguments.chat,
                "answers": arguments.answers, "body": arguments.body,
                "workload": asdict(workload),
                "seen_share": seen_share(sessions, workload.system_tokens)}
        player = Player(stream, workload, conversations(client, model, arguments),
                        fields_of(model, mode, salt, arguments), salt)
        played = player.play(sessions)
    return played, line | summary(played)


def append(path: Path, lines: list[dict]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def run(arguments: Namespace) -> int:
    """The number of turns that failed."""
    num_failed, first = 0, None
    for mode in arguments.modes or [None]:
        if mode is not None:
            parse_mode(mode, [""])  # refused before a server is started
    for mode in arguments.modes or [None]:
        played, line = play(mode, arguments)
        if first is not None:
            pairs = paired(first.rows, played.rows)
            line |= {"over": arguments.modes[0], "paired": pairs}
        append(arguments.results, [line])
        if arguments.turns_out:
            append(arguments.turns_out, [{"date": line["date"], "mode": mode} | row
                                         for row in played.rows])
        print(f"{line['model']}{f', {mode}' if mode else ''}, on {line['machine']}\n")
        print(table(line) + "\n", flush=True)
        if first is not None:
            print(paired_table((arguments.modes[0], mode), pairs) + "\n", flush=True)
        first = first or played
        num_failed += line["all"]["failed"]
    return num_failed


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(__doc__, argv)
    try:
        num_failed = run(arguments)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"replay.py: {error}")
    if num_failed > 0:
        sys.exit(f"replay.py: {num_failed} turns failed")


if __name__ == "__main__":
    main()
