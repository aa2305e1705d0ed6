"""What the sessions of replay.py say. A conversation is kept as the JSON of its request and grows
at its end, so that a turn costs this program what is new in it, not the whole prompt again.
"""

import json
import random
from collections.abc import Sequence

from bench_server import ROOT, Client, random_ids
from replay_client import Answer, TurnError

HAYSTACK = ROOT / "tests" / "bench" / "haystack" / "postgresql-15.txt"
PART_CHARS = 50_000
NUM_RANDOM_IDS = 250_000  # about as many as the haystack has
MESSAGE_TOKENS = 16  # what a template may put around a message


def piece(source: Sequence, count: int, seed: str) -> Sequence:
    """`count` characters or ids from a place drawn by the seed; the source repeats."""
    begin = random.Random(seed).randrange(len(source))
    taken = source[begin:begin + count]
    while len(taken) < count:
        taken = taken + source[:count - len(taken)]
    return taken


def haystack_ids(client: Client, model: str) -> list[int]:
    """Natural text: in random ids PBS finds no structure."""
    text = HAYSTACK.read_text("utf-8")
    return [token for begin in range(0, len(text), PART_CHARS)
            for token in tokenize(client, model, text[begin:begin + PART_CHARS])]


def random_source(vocab_size: int) -> list[int]:
    return random_ids(NUM_RANDOM_IDS, vocab_size, "replay")


def tokenize(client: Client, model: str, text: str) -> list[int]:
    return client.post("/tokenize", {"model": model, "prompt": text,
                                     "add_special_tokens": False})["tokens"]


class IdConversation:
    """Token ids for /v1/completions. Answers go on as `tokens_of` (text -> ids) reads them, or as
    the ids that the stream brought where that is None."""

    path = "/v1/completions"

    def __init__(self, source: list[str], tokens_of):
        """`source`: ids as JSON writes them: to write them anew each turn would hold up others."""
        self.source, self.tokens_of = source, tokens_of
        self.json = bytearray()
        self.num_tokens = 0

    def begin(self, num_tokens: int, seed: str, salt: str) -> None:
        """The system prompt. The salt goes into the request's cache_salt, not in here."""
        self.add_new(num_tokens, seed)

    def add_new(self, num_tokens: int, seed: str) -> None:
        self._append(piece(self.source, num_tokens, seed))

    def add_answer(self, answer: Answer) -> int:
        """Returns the ids that the next prompt has of it: another number than was drawn where text
        does not say which tokens made it. Raises TurnError where they cannot be had."""
        if self.tokens_of is None:
            if len(answer.ids) != answer.output_tokens:
                raise TurnError(f"--answers returned: the stream has {len(answer.ids)} token_ids,"
                                f" its usage {answer.output_tokens}")
            self._append(list(map(str, answer.ids)))
            return len(answer.ids)
        try:
            ids = self.tokens_of(answer.text) if answer.text else []
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise TurnError(f"/tokenize of the answer: {type(error).__name__}: {error}") from error
        self._append(list(map(str, ids)))
        return len(ids)

    def fields(self) -> bytes:
        return b'"prompt": [' + bytes(self.json) + b"]"

    def _append(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        if self.json:
            self.json += b","
        self.json += ",".join(ids).encode()
        self.num_tokens += len(ids)


class ChatConversation:
    """Messages for any chat server. Without its tokenizer what is new is counted in characters;
    after an answer the usage says what the conversation takes."""

    path = "/v1/chat/completions"

    def __init__(self, source: str, chars_per_token: float):
        self.source, self.chars_per_token = source, chars_per_token
        self.json = bytearray()
        self.num_tokens = 0

    def begin(self, num_tokens: int, seed: str, salt: str) -> None:
        """The salt leads the system prompt, so that no run or arm meets the cache of another."""
        self._append("system", f"{salt}\n{self._text(num_tokens, seed)}")
        self.num_tokens += num_tokens + MESSAGE_TOKENS

    def add_new(self, num_tokens: int, seed: str) -> None:
        self._append("user", self._text(num_tokens, seed))
        self.num_tokens += num_tokens + MESSAGE_TOKENS

    def add_answer(self, answer: Answer) -> int:
        self._append("assistant", answer.text)
        self.num_tokens = answer.prompt_tokens + answer.output_tokens
        return answer.output_tokens

    def fields(self) -> bytes:
        return b'"messages": [' + bytes(self.json) + b"]"

    def _text(self, num_tokens: int, seed: str) -> str:
        return piece(self.source, round(num_tokens * self.chars_per_token), seed)

    def _append(self, role: str, content: str) -> None:
        if self.json:
            self.json += b","
        self.json += json.dumps({"role": role, "content": content}).encode()
