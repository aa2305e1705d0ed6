"""What agents ask of a server, drawn by a seed: sessions that arrive as a Poisson process, the
turns of each, what a turn adds to the prompt, how long its answer is, and the pause before it.

The medians are those of coding agents in 2026: 43 turns a session, 142K tokens in its last prompt
(over all turns of many sessions the median prompt comes out near that too), 444 tokens an answer,
over 96 % of the input seen before. How far the draws spread, the pauses and the system prompt's
length are assumptions.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

# Standard deviations of the logarithms; nothing is drawn further than SPREAD_MAX of them away.
TURNS_SPREAD = 0.9
TOKENS_SPREAD = 0.8
THINK_SPREAD = 1.5  # a tool that answers at once, and a user who reads for minutes
SPREAD_MAX = 3


@dataclass(frozen=True)
class Turn:
    new_tokens: int  # on what was said before: a question, a tool's result
    output_tokens: int
    think_s: float  # since the answer before; 0 for the first turn


@dataclass(frozen=True)
class Session:
    index: int
    arrival_s: float
    system_prompt: int  # its index
    turns: tuple[Turn, ...]
    num_cut: int  # turns left out because they would not fit

    def prompt_tokens(self, system_tokens: int) -> list[int]:
        """Of each turn, if every answer has the length that was drawn."""
        length, lengths = system_tokens, []
        for turn in self.turns:
            lengths.append(length + turn.new_tokens)
            length = lengths[-1] + turn.output_tokens
        return lengths


@dataclass(frozen=True)
class Workload:
    """Medians, where a quantity is drawn."""

    max_model_len: int
    seed: str = "1"
    num_sessions: int = 32
    sessions_per_s: float = 0.1
    turns: float = 43
    num_system_prompts: int = 4
    system_tokens: int = 16_000  # all have the same length
    new_tokens: float = 1_700
    output_tokens: float = 444
    think_s: float = 4
    time_scale: float = 1  # of arrivals and pauses: below 1 they are compressed

    def sessions(self) -> list[Session]:
        """The same for the same fields; more sessions leave the first ones as they are."""
        arrivals = random.Random(f"{self.seed} arrivals")
        arrival_s, sessions = 0.0, []
        for index in range(self.num_sessions):
            arrival_s += arrivals.expovariate(self.sessions_per_s) * self.time_scale
            sessions.append(self._session(index, arrival_s))
        return sessions

    def _session(self, index: int, arrival_s: float) -> Session:
        source = random.Random(f"{self.seed} session {index}")
        system_prompt = source.randrange(self.num_system_prompts)
        num_turns = _draw_count(source, self.turns, TURNS_SPREAD)
        turns = []
        for number in range(num_turns):
            new_tokens = _draw_count(source, self.new_tokens, TOKENS_SPREAD)
            output_tokens = _draw_count(source, self.output_tokens, TOKENS_SPREAD)
            think_s = _draw(source, self.think_s, THINK_SPREAD) * self.time_scale
            turns.append(Turn(new_tokens, output_tokens, think_s if number > 0 else 0.0))
        return self._cut(Session(index, arrival_s, system_prompt, tuple(turns), num_cut=0))

    def _cut(self, session: Session) -> Session:
        """Up to the last turn whose answer ends within the model's context."""
        lengths = session.prompt_tokens(self.system_tokens)
        num_kept = sum(length + turn.output_tokens <= self.max_model_len
                       for length, turn in zip(lengths, session.turns))
        if num_kept == 0:
            needed = lengths[0] + session.turns[0].output_tokens
            raise ValueError(f"--max-model-len {self.max_model_len}: the first turn of session"
                             f" {session.index} takes {needed} tokens, {self.system_tokens} of"
                             " them the system prompt's")
        return Session(session.index, session.arrival_s, session.system_prompt,
                       session.turns[:num_kept], len(session.turns) - num_kept)


def seen_share(sessions: Iterable[Session], system_tokens: int) -> float:
    """The share of all input that came before: what a cache that forgets nothing finds. An answer
    was seen when it was drawn, a system prompt when its first session sent it."""
    sessions = list(sessions)
    total = sum(sum(session.prompt_tokens(system_tokens)) for session in sessions)
    new = sum(turn.new_tokens for session in sessions for turn in session.turns)
    new += system_tokens * len({session.system_prompt for session in sessions})
    return 1 - new / total


def _draw(source: random.Random, median: float, spread: float) -> float:
    deviations = max(-SPREAD_MAX, min(SPREAD_MAX, source.gauss(0, 1)))
    return median * math.exp(spread * deviations)


def _draw_count(source: random.Random, median: float, spread: float) -> int:
    return max(1, round(_draw(source, median, spread)))
