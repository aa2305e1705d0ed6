"""The command line of replay.py, and the workload it describes."""

import argparse
import json
from pathlib import Path

from bench_server import ROOT
from replay_workload import Workload

DEFAULTS = Workload(max_model_len=0)


def _positive(kind):
    def read(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: must be above 0")
        return value
    return read


def _fields(text: str) -> dict:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text}: must be a JSON object")
    return value


def parse_arguments(description: str, argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_server(parser.add_argument_group("server"))
    _add_requests(parser.add_argument_group("requests"))
    _add_workload(parser.add_argument_group("workload (medians, where a quantity is drawn)"))
    _add_results(parser.add_argument_group("results"))
    arguments = parser.parse_args(argv)
    if arguments.base_url is None:
        if arguments.api_key or arguments.label:
            parser.error("--api-key and --label go with --base-url")
        arguments.model = arguments.model or str(ROOT / "models" / "demo")
    else:
        if arguments.settings or arguments.dummy:
            parser.error("--set and --dummy go with a server that is started here, not --base-url")
        arguments.base_url = arguments.base_url.rstrip("/").removesuffix("/v1")
    if arguments.chat and (arguments.answers != "tokenize" or arguments.random_ids):
        parser.error("--answers and --random-ids are about token ids, not --chat")
    return arguments


def _add_server(group) -> None:
    release = ROOT / "build" / "release" / "server" / "pbserve"
    group.add_argument("--base-url", help="of a server that runs; otherwise a pbserve is started"
                       " for each mode")
    group.add_argument("--model", help="its name there, default: the first in /v1/models; or the"
                       " folder to start from, default: the demo model")
    group.add_argument("--api-key")
    group.add_argument("--label", default="", help="how a server that runs was started")
    group.add_argument("--server-binary", type=Path, default=release)
    group.add_argument("--dummy", action="store_true", help="random weights and random ids")
    group.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")


def _add_requests(group) -> None:
    group.add_argument("--modes", nargs="+", metavar="MODE[:THRESHOLD]",
                       help="of pbserve's attention, one run each with the same sessions; the"
                       " others are compared with the first")
    group.add_argument("--chat", action="store_true",
                       help="text for /v1/chat/completions instead of ids for /v1/completions")
    group.add_argument("--chars-per-token", type=_positive(float), default=4, help="with --chat")
    group.add_argument("--random-ids", type=_positive(int), metavar="VOCAB_SIZE",
                       help="instead of natural text, for random weights")
    group.add_argument("--answers", choices=("tokenize", "returned"), default="tokenize",
                       help="how an answer becomes ids: by the server's /tokenize, or by its"
                       " return_token_ids (vLLM)")
    group.add_argument("--body", type=_fields, default={}, metavar="JSON",
                       help="more fields of each request; null takes one away")
    group.add_argument("--timeout-s", type=_positive(float), default=600,
                       help="the longest wait for a byte")


def _add_workload(group) -> None:
    group.add_argument("--sessions", type=_positive(int), default=DEFAULTS.num_sessions)
    group.add_argument("--rate", type=_positive(float), default=DEFAULTS.sessions_per_s,
                       help="sessions that begin in a second")
    group.add_argument("--turns", type=_positive(float), default=DEFAULTS.turns)
    group.add_argument("--system-prompts", type=_positive(int),
                       default=DEFAULTS.num_system_prompts)
    group.add_argument("--system-tokens", type=_positive(int), default=DEFAULTS.system_tokens)
    group.add_argument("--new-tokens", type=_positive(float), default=DEFAULTS.new_tokens)
    group.add_argument("--output-tokens", type=_positive(float), default=DEFAULTS.output_tokens)
    group.add_argument("--think-s", type=_positive(float), default=DEFAULTS.think_s)
    group.add_argument("--time-scale", type=_positive(float), default=DEFAULTS.time_scale,
                       help="of arrivals and pauses; below 1 they are compressed")
    group.add_argument("--max-model-len", type=_positive(int),
                       help="sessions end before it; default: what the server says")
    group.add_argument("--seed", default=DEFAULTS.seed)


def _add_results(group) -> None:
    group.add_argument("--commit", help="where this is a copy without its repository")
    group.add_argument("--machine", help="where the server does not say it")
    group.add_argument("--results", type=Path,
                       default=ROOT / "tests" / "bench" / "results" / "replay.jsonl")
    group.add_argument("--turns-out", type=Path, help="one JSON line a turn besides")


def workload_of(arguments: argparse.Namespace, max_model_len: int) -> Workload:
    return Workload(
        max_model_len=max_model_len, seed=arguments.seed, num_sessions=arguments.sessions,
        sessions_per_s=arguments.rate, turns=arguments.turns,
        num_system_prompts=arguments.system_prompts, system_tokens=arguments.system_tokens,
        new_tokens=arguments.new_tokens, output_tokens=arguments.output_tokens,
        think_s=arguments.think_s, time_scale=arguments.time_scale)
