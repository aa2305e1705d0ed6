"""replay.py against a server that answers as it is told: what is sent, what is timed, what counts
as failed; and how turns are added up."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import replay
from bench_server import Client
from replay_client import Answer, StreamClient, TurnError
from replay_player import Played, Player
from replay_prompts import ChatConversation, IdConversation, piece
from replay_results import BUCKETS, in_flight_max, paired, quantile, summary, table, times
from replay_workload import Workload

USAGE = {"prompt_tokens": 10, "completion_tokens": 2,
         "prompt_tokens_details": {"cached_tokens": 4}}
DONE = "data: [DONE]\n\n"


def event(fields: dict) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def text(content: str, **fields) -> str:
    return event({"choices": [{"text": content} | fields], "usage": None})


END = event({"choices": [], "usage": USAGE}) + DONE


class Scripted(ThreadingHTTPServer):
    """Answers the n-th completion with what `script(n, body)` says: a status or parts of a stream,
    text or seconds to wait; None breaks the connection."""

    daemon_threads = True

    def __init__(self, script):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.bodies = script, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.reply(200, {"tokens": list(body["prompt"].encode())})
        with self.server.lock:
            self.server.bodies.append(
                body | {"path": self.path, "key": self.headers["Authorization"]})
            script = self.server.script(len(self.server.bodies), body)
        if isinstance(script, int):
            return self.reply(script, {"error": {"message": "told to"}})
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in script:
            if part is None:
                self.close_connection = True
                return None
            if isinstance(part, float):
                time.sleep(part)
            else:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part.encode()), part.encode()))
        self.wfile.write(b"0\r\n\r\n")
        return None

    def reply(self, status: int, fields: dict):
        data = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def ask(script: list | int, timeout_s: float = 5) -> Answer:
    with Scripted(lambda number, body: script) as server:
        return StreamClient(server.url, None, timeout_s).ask("/v1/completions", b"{}")


def test_the_first_text_is_timed_not_the_first_event():
    role = event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    answer = ask([": comment\n\n", role, 0.2, text("ab"), 0.3, text("c"), END])
    assert answer.ttft_s >= 0.2
    assert answer.ended_at - answer.sent_at - answer.ttft_s >= 0.1
    assert answer.text == "abc"
    assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (10, 4, 2)


def test_events_may_be_cut_anywhere():
    stream = text("a\u00e9") + text("b", token_ids=[7, 8]) + END
    answer = ask([stream[:9], stream[9:40], stream[40:41], stream[41:]])
    assert answer.text == "a\u00e9b" and answer.ids == [7, 8]


def test_an_answer_without_text_has_its_first_token_at_the_end():
    answer = ask([text(""), 0.05, END])
    assert answer.ttft_s == answer.ended_at - answer.sent_at >= 0.05


def test_a_usage_may_not_say_what_was_cached():
    plain = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    assert ask([text("a"), plain, DONE]).cached_tokens is None


@pytest.mark.parametrize("script, message", [
    (503, "status 503: .*told to"),
    ([text("a"), event({"error": {"message": "lost"}}), DONE], "error in the stream: .*lost"),
    ([text("a"), event({"choices": [], "usage": USAGE})], "ended without .DONE."),
    ([text("a"), None], "IncompleteRead"),
    ([text("a"), DONE], "no usage"),
    (["data: {\n\n", END], "not an OpenAI stream"),
    ([text("a"), event({"choices": [], "usage": {"completion_tokens": 1}}), DONE],
     "not an OpenAI stream: KeyError: 'prompt_tokens'"),
    ([0.6, text("a"), END], "TimeoutError"),
])
def test_what_is_not_a_whole_answer_is_an_error(script, message):
    with pytest.raises(TurnError, match=message):
        ask(script, timeout_s=0.3 if message == "TimeoutError" else 10)


def test_a_server_that_is_not_there_is_an_error():
    with Scripted(lambda number, body: 500) as server:
        url = server.url
    with pytest.raises(TurnError, match="ConnectionRefusedError"):
        StreamClient(url, None, 1).ask("/v1/completions", b"{}")
    with pytest.raises(ValueError, match="--base-url host:80: expected http:// or https://"):
        StreamClient("host:80", None, 1)


def play(script, conversation, **fields) -> tuple[Played, list[dict], Workload]:
    workload = Workload(**{"max_model_len": 10_000, "num_sessions": 3, "sessions_per_s": 50,
                           "turns": 4, "num_system_prompts": 2, "system_tokens": 30,
                           "new_tokens": 5, "output_tokens": 3, "think_s": 0.01} | fields)
    with Scripted(script) as server:
        player = Player(StreamClient(server.url, "k", 5), workload,
                        lambda: conversation(Client(server.url)), {"model": "m"}, "salt")
        return player.play(workload.sessions()), server.bodies, workload


def ids(client: Client) -> IdConversation:
    return IdConversation([str(token) for token in range(1000, 2000)],
                          lambda answer: replay.tokenize(client, "m", answer))


def by_session(bodies: list[dict], field: str, workload: Workload) -> list[list]:
    """The bodies' prompts, each session's in order: a session is known by its first question."""
    chains: dict[str, list] = {}
    length = workload.system_tokens + 1 if field == "prompt" else 2
    for body in bodies:
        chains.setdefault(str(body[field][:length]), []).append(body[field])
    return list(chains.values())


def test_a_turn_says_all_again_with_the_answer_that_came():
    played, bodies, workload = play(lambda number, body: [text(f"<{number}>"), END], ids)
    sessions = workload.sessions()
    assert played.ended == {"whole": 3, "context": 0, "failed": 0}
    assert [(row["session"], row["turn"]) for row in played.rows] == [
        (session.index, number) for session in sessions
        for number in range(1, len(session.turns) + 1)]
    chains = by_session(bodies, "prompt", workload)
    assert sorted(map(len, chains)) == sorted(len(session.turns) for session in sessions)
    answers = {str(body["prompt"]): list(f"<{number}>".encode())
               for number, body in enumerate(bodies, 1)}
    assert all(row["output_tokens"] == 2 for row in played.rows)
    assert {row["said_again_tokens"] for row in played.rows} <= {3, 4}, "bytes of <1> and <10>"
    for chain in chains:
        for before, after in zip(chain, chain[1:]):
            said = before + answers[str(before)]
            assert after[:len(said)] == said and len(after) > len(said)
    assert len({str(chain[0][:30]) for chain in chains}) == len(
        {session.system_prompt for session in sessions})
    assert {(body["path"], body["key"], body["stream"], body["model"]) for body in bodies} == {
        ("/v1/completions", "Bearer k", True, "m")}


def test_a_chat_goes_on_in_messages():
    played, bodies, workload = play(lambda number, body: [text("said"), END],
                                    lambda client: ChatConversation("some text " * 50, 4))
    assert played.ended["whole"] == 3
    for chain in by_session(bodies, "messages", workload):
        assert chain[0][0]["content"].startswith("salt\n")
        for number, messages in enumerate(chain):
            roles = ["system", *["user", "assistant"] * number, "user"]
            assert [message["role"] for message in messages] == roles
            assert [m["content"] for m in messages if m["role"] == "assistant"] == [
                "said"] * number
            assert number == 0 or messages[:-2] == chain[number - 1]


def test_a_failed_turn_is_counted_and_ends_its_session():
    def script(number: int, body: dict):
        return 500 if number == 2 else [text("a"), END]

    played, bodies, workload = play(script, ids)
    failed = [row for row in played.rows if "error" in row]
    assert played.ended == {"whole": 2, "context": 0, "failed": 1}
    assert len(failed) == 1 and "status 500" in failed[0]["error"]
    assert failed[0]["turn"] == max(
        row["turn"] for row in played.rows if row["session"] == failed[0]["session"])
    assert len(bodies) == len(played.rows) < sum(len(s.turns) for s in workload.sessions())
    shown = summary(played)
    assert shown["all"]["failed"] == 1 and list(shown["errors"].values()) == [1]
    assert f"1 turns failed: {failed[0]['error']}" in table(shown | {"seen_share": 0.5})


def test_answers_longer_than_drawn_end_a_session_in_time():
    played, bodies, _ = play(lambda number, body: [text("x" * 80), END], ids, max_model_len=200)
    assert played.ended["context"] > 0 and played.ended["failed"] == 0
    assert max(len(body["prompt"]) + body["max_tokens"] for body in bodies) <= 200


def test_ids_that_were_asked_for_and_did_not_come_are_an_error():
    played, _, _ = play(lambda number, body: [text("a", token_ids=[1]), END],
                        lambda client: IdConversation(["1", "2", "3"], None))
    assert played.ended["failed"] == 3
    assert {row["error"] for row in played.rows} == {
        "--answers returned: the stream has 1 token_ids, its usage 2"}


def test_pieces_repeat_their_source_and_follow_their_seed():
    source = list(range(7))
    taken = piece(source, 20, "a")
    assert len(taken) == 20 and taken == piece(source, 20, "a")
    assert all((after - before) % 7 == 1 for before, after in zip(taken, taken[1:]) if after)
    assert {piece(source, 1, f"{i}")[0] for i in range(100)} == set(source)


def row(session: int, turn: int, ttft_ms: float, **fields) -> dict:
    return {"session": session, "turn": turn, "at_s": 0.0, "late_ms": 0.5, "planned_output": 5,
            "ttft_ms": ttft_ms, "total_ms": 2 * ttft_ms, "prompt_tokens": 100,
            "cached_tokens": 50, "output_tokens": 5, "said_again_tokens": 6} | fields


FAILED = {"session": 9, "turn": 3, "at_s": 0.0, "late_ms": 1.5, "planned_output": 5, "error": "e"}


def test_quantiles_are_values_that_were_measured():
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert quantile([3.0], 99) == 3 and quantile([], 50) is None


def test_turns_add_up_by_their_number():
    rows = [row(0, turn, 10 * turn) for turn in range(1, 31)] + [FAILED]
    shown = summary(Played(rows, {"whole": 1, "context": 0, "failed": 1}, 10.0, [0.001, 0.003]))
    assert {name: part["turns"] for name, part in shown["by_turn"].items()} == {
        "1": 1, "2-5": 5, "6-20": 15, "21+": 10}
    assert sum(part["turns"] for part in shown["by_turn"].values()) == shown["all"]["turns"] == 31
    assert shown["by_turn"]["2-5"] | {"failed": 1, "ttft_ms_p50": 30, "total_ms_p99": 100} == (
        shown["by_turn"]["2-5"]), "times are those of answered turns"
    assert shown["all"]["hit_share"] == 0.5
    assert (shown["output_tokens"], shown["said_again_tokens"]) == (150, 180)
    assert shown["output_tokens_per_s"] == 15 and shown["prompt_tokens_per_s"] == 300
    assert shown["client_late_ms"]["max"] == 1.5 and shown["client_heartbeat_ms"]["max"] == 3
    assert "| 2-5 | 5 | 1 | 100 | 0.500 | 30 / 50 / 50 | 60 / 100 / 100 |" in table(
        shown | {"seen_share": 0.5})


def test_a_hit_share_is_of_tokens_and_known_only_where_all_is():
    assert times([row(0, 1, 1), row(0, 2, 1, prompt_tokens=300)])["hit_share"] == 0.25
    assert times([row(0, 1, 1), row(0, 2, 1, cached_tokens=None)])["hit_share"] is None
    assert times([])["hit_share"] is None and times([FAILED])["ttft_ms_p50"] is None


def test_arms_are_compared_turn_by_turn():
    first = [row(0, 1, 10), row(0, 2, 10), row(0, 3, 10), row(1, 2, 10)]
    second = [row(0, 1, 5), row(0, 2, 20), row(1, 2, 40), row(1, 3, 1), FAILED]
    pairs = paired(first, second)
    assert pairs["1"] == {"turns": 1, "ttft_ms": 0.5, "total_ms": 0.5}
    assert pairs["2-5"] == {"turns": 2, "ttft_ms": 3, "total_ms": 3}
    assert pairs["21+"] == {"turns": 0, "ttft_ms": None, "total_ms": None}
    assert BUCKETS[0] == (1, 1)


def test_turns_in_flight():
    rows = [row(i, 1, 500, at_s=at) for i, at in enumerate([0.0, 0.5, 0.9, 1.0, 5.0])]
    assert in_flight_max(rows) == 3
    assert in_flight_max([]) == 0
