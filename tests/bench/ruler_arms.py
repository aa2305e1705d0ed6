"""The arms of ruler.py: one attention mode on one server each, and how to ask it."""

import uuid
from dataclasses import dataclass

from bench_server import Client
from ruler_tasks import Prompt

MODES = ("dense", "pbs", "auto")
COVERAGES = ("coverage", "coverage_lowest_layer", "coverage_lowest_head")


@dataclass(frozen=True)
class Arm:
    label: str  # of the server; may be empty
    mode: str  # as it was written: pbs:0.6
    sparse_attention: dict
    client: Client
    info: dict  # /server_info

    def names(self) -> dict:
        return {"model": self.info["model"], "arm": self.label, "mode": self.mode}


def parse_mode(text: str, labels: list[str]) -> tuple[str | None, str, dict]:
    """[NAME/]MODE[:THRESHOLD] -> (name, the rest, the request's sparse_attention)."""
    label, has_label, mode = text.rpartition("/")
    kind, has_threshold, threshold = mode.partition(":")
    try:
        sparse_attention = {"mode": kind} | (
            {"threshold": float(threshold)} if has_threshold else {})
        if kind in MODES and (not has_label or label in labels):
            return (label if has_label else None), mode, sparse_attention
    except ValueError:
        pass
    servers = f" and NAME one of {', '.join(labels)}" if any(labels) else ""
    raise ValueError(f"--mode {text}: expected [NAME/]MODE[:THRESHOLD] with MODE one of"
                     f" {', '.join(MODES)}{servers}")


def connect(servers: list[str], label: str, modes: list[str], length: int,
            api_key: str | None = None) -> list[Arm]:
    """Every mode on every server it is meant for, the first mode first.

    `label` is for a server without a name; `length` is the longest that will be asked.
    """
    clients: dict[str, Client] = {}
    for server in servers:
        name, has_name, url = server.partition("=")
        name, url = (name, url) if has_name else (label, server)
        if name in clients:
            raise ValueError(f"--server {server}: another one has the name {name!r} already")
        clients[name] = Client(url, api_key)
    infos = {name: client.get("/server_info") for name, client in clients.items()}
    if len(models := {info["model"] for info in infos.values()}) > 1:
        raise ValueError(f"--server: the arms of a run share a model: {' and '.join(models)}")
    for name, info in infos.items():
        if length > info["max_model_len"]:
            raise ValueError(f"--lengths {length}: max_model_len of the server"
                             f" {name or clients[name].url} is {info['max_model_len']}")
    arms: list[Arm] = []
    for text in modes:
        only, mode, sparse_attention = parse_mode(text, list(clients))
        arms += [Arm(name, mode, sparse_attention, client, infos[name])
                 for name, client in clients.items() if only in (None, name)]
    return arms


def count_tokens(client: Client, text: str, is_chat: bool) -> int:
    """Of the text as a chat's only message, or as it is."""
    asked = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
    return client.post("/tokenize", asked)["count"]


def tokens_of(client: Client, text: str) -> list[int]:
    return client.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]


def ask(arm: Arm, prompt: Prompt) -> dict:
    """One prompt to one arm: what it answered, how dense its attention was, how long it took."""
    body = {"max_tokens": prompt.answer_tokens, "temperature": 0, "cache_salt": uuid.uuid4().hex,
            "sparse_attention": arm.sparse_attention, "include_metrics": True}
    if prompt.is_chat:
        messages = [{"role": "user", "content": prompt.text}]
        response = arm.client.post("/v1/chat/completions", body | {"messages": messages})
        answer = response["choices"][0]["message"]["content"] or ""
    else:
        continued = {"prompt": prompt.text, "ignore_eos": True}
        response = arm.client.post("/v1/completions", body | continued)
        answer = response["choices"][0]["text"]
    usage, metrics = response["usage"], response["metrics"]
    if usage["prompt_tokens"] != prompt.num_tokens:
        raise ValueError(f"{arm.client.url}: {usage['prompt_tokens']} prompt tokens, expected"
                         f" {prompt.num_tokens}: the servers must share a tokenizer")
    sparse = metrics["sparse_attention"]
    return {
        "answer": answer, "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "mode_used": sparse["mode"], "density": sparse["density"],
        **{name: sparse[name] for name in COVERAGES if name in sparse},
        "prefill_ms": metrics["prefill_time_ms"],
    }
