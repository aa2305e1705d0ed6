"""Plays sessions against a server, one thread each, and writes down every turn."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from replay_client import StreamClient, TurnError
from replay_workload import Session, Turn, Workload

HEARTBEAT_S = 0.01
LEAD_S = 0.5  # before a session arrives its thread makes its first prompt


@dataclass(frozen=True)
class Played:
    rows: list[dict]  # one a turn that was asked
    ended: dict[str, int]  # sessions by how they ended: whole, context, failed
    wall_s: float
    heartbeat_s: list[float]  # by how much each of this program's own pauses was too long


class Heartbeat(threading.Thread):
    """How late this program wakes: what it adds to every time it takes. ENDS: at `stop`."""

    def __init__(self, stop: threading.Event):
        super().__init__(daemon=True)
        self.stop = stop
        self.late_s: list[float] = []

    def run(self) -> None:
        due = time.monotonic() + HEARTBEAT_S
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            self.late_s.append(now - due)
            due = now + HEARTBEAT_S


class Player:
    """Sessions share nothing but what is set here; rows are appended under Python's lock."""

    def __init__(self, client: StreamClient, workload: Workload, make_conversation: Callable,
                 fields: dict, salt: str):
        """`fields`: of every request, besides the prompt and max_tokens."""
        self.client, self.workload = client, workload
        self.make_conversation, self.fields, self.salt = make_conversation, fields, salt
        self.stop = threading.Event()
        self.rows: list[dict] = []

    def play(self, sessions: list[Session]) -> Played:
        heartbeat = Heartbeat(self.stop)
        self.began_at = time.monotonic() + LEAD_S
        heartbeat.start()
        with ThreadPoolExecutor(max_workers=len(sessions)) as pool:
            try:
                jobs = []
                for session in sessions:
                    self._sleep_until(self.began_at + session.arrival_s - LEAD_S)
                    jobs.append(pool.submit(self._session, session))
                endings = [job.result() for job in jobs]
            finally:
                self.stop.set()  # after an exception the other sessions end with their turn
        wall_s = time.monotonic() - self.began_at
        ended = {ending: endings.count(ending) for ending in ("whole", "context", "failed")}
        order = sorted(self.rows, key=lambda row: (row["session"], row["turn"]))
        return Played(order, ended, wall_s, heartbeat.late_s)

    def _session(self, session: Session) -> str:
        """How it ended."""
        workload, conversation = self.workload, self.make_conversation()
        conversation.begin(workload.system_tokens,
                           f"{workload.seed} system {session.system_prompt}", self.salt)
        due = self.began_at + session.arrival_s
        for number, turn in enumerate(session.turns, 1):
            conversation.add_new(turn.new_tokens, f"{workload.seed} {session.index} {number}")
            if conversation.num_tokens + turn.output_tokens > workload.max_model_len:
                return "context"  # answers came out longer than they were drawn
            body = self._body(conversation, turn)
            self._sleep_until(due)
            if self.stop.is_set():
                return "failed"
            row = {"session": session.index, "turn": number, "planned_output": turn.output_tokens,
                   "late_ms": 1000 * (time.monotonic() - due),
                   "at_s": time.monotonic() - self.began_at}
            try:
                ended_at = self._turn(conversation, body, row)
            except TurnError as error:
                row["error"] = str(error)
                return "failed"
            finally:
                self.rows.append(row)
            if number < len(session.turns):
                due = max(ended_at + session.turns[number].think_s, time.monotonic())
        return "context" if session.num_cut else "whole"

    def _turn(self, conversation, body: bytes, row: dict) -> float:
        """Asks, fills in the row and lets the conversation go on; returns when the answer ended."""
        answer = self.client.ask(conversation.path, body)
        row |= {"ttft_ms": 1000 * answer.ttft_s,
                "total_ms": 1000 * (answer.ended_at - answer.sent_at),
                "prompt_tokens": answer.prompt_tokens, "cached_tokens": answer.cached_tokens,
                "output_tokens": answer.output_tokens}
        row["said_again_tokens"] = conversation.add_answer(answer)
        return answer.ended_at

    def _body(self, conversation, turn: Turn) -> bytes:
        fields = {"max_tokens": turn.output_tokens, "stream": True,
                  "stream_options": {"include_usage": True}} | self.fields
        known = {name: value for name, value in fields.items() if value is not None}
        return json.dumps(known).encode()[:-1] + b", " + conversation.fields() + b"}"

    def _sleep_until(self, moment: float) -> None:
        self.stop.wait(max(0.0, moment - time.monotonic()))
