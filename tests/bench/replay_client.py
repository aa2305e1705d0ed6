"""One streamed answer of an OpenAI server, timed as its bytes arrive; standard library only.

Events are parsed up to the first text and then only kept until the stream has ended, so that the
streams beside this one are read in time.
"""

import http.client
import json
import time
import urllib.parse
from dataclasses import dataclass

READ_BYTES_MAX = 65536
ERROR_CHARS_MAX = 300


class TurnError(RuntimeError):
    """The answer did not come, or not whole."""


@dataclass(frozen=True)
class Answer:
    sent_at: float  # time.monotonic(), before the connection was opened
    ended_at: float
    ttft_s: float  # until the first text, or until the end of an answer without text
    text: str
    ids: list[int]  # where the server was asked for them
    prompt_tokens: int
    cached_tokens: int | None  # None: the usage does not say
    output_tokens: int


class EventLog:
    """The data of a stream's events. Lines that are comments or fields of other kinds pass by."""

    def __init__(self):
        self.rest = bytearray()
        self.events: list[dict] = []
        self.is_done = False
        self.has_text = False

    def feed(self, data: bytes) -> None:
        if self.has_text:
            self.rest += data
        else:
            self._parse(data)

    def finish(self) -> None:
        self._parse(b"\n")
        if not self.is_done:
            raise TurnError("the stream ended without [DONE]")

    def _parse(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.is_done = True
                continue
            event = json.loads(payload)
            if "error" in event:
                raise TurnError(f"error in the stream: {payload.decode()[:ERROR_CHARS_MAX]}")
            self.events.append(event)
            self.has_text = self.has_text or bool(text_of(event))


def text_of(event: dict) -> str:
    """Of /v1/completions or of a chat; what a model thinks aloud is text too."""
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or {}
        return (choice.get("text") or delta.get("content") or delta.get("reasoning_content")
                or delta.get("reasoning") or "")
    return ""


class StreamClient:
    """A connection of its own for each answer, so that threads may share it."""

    def __init__(self, url: str, api_key: str | None, timeout_s: float):
        """`timeout_s`: the longest wait for a byte."""
        self.address = urllib.parse.urlsplit(url)
        if self.address.scheme not in ("http", "https") or not self.address.hostname:
            raise ValueError(f"--base-url {url}: expected http:// or https:// and a host")
        self.timeout_s = timeout_s
        self.headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def ask(self, path: str, body: bytes) -> Answer:
        """Raises TurnError."""
        is_tls = self.address.scheme == "https"
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        connection = kind(self.address.hostname, self.address.port, timeout=self.timeout_s)
        sent_at = time.monotonic()
        try:
            connection.request("POST", self.address.path.rstrip("/") + path, body, self.headers)
            response = connection.getresponse()
            if response.status != 200:
                said = response.read().decode(errors="replace")
                raise TurnError(f"status {response.status}: {said[:ERROR_CHARS_MAX]}")
            return self._read(response, sent_at)
        except (OSError, http.client.HTTPException) as error:
            raise TurnError(f"{type(error).__name__}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TurnError(f"not an OpenAI stream: {type(error).__name__}: {error}") from error
        finally:
            connection.close()

    @staticmethod
    def _read(response: http.client.HTTPResponse, sent_at: float) -> Answer:
        log = EventLog()
        first_at = None
        ended_at = sent_at
        while data := response.read1(READ_BYTES_MAX):
            ended_at = time.monotonic()
            log.feed(data)
            if first_at is None and log.has_text:
                first_at = ended_at
        log.finish()
        return _answer(log.events, sent_at, ended_at if first_at is None else first_at, ended_at)


def _answer(events: list[dict], sent_at: float, first_at: float, ended_at: float) -> Answer:
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    if usage is None:
        raise TurnError("the stream has no usage: stream_options.include_usage was not followed")
    ids = [token for event in events for choice in event.get("choices") or []
           for token in choice.get("token_ids") or []]
    return Answer(sent_at, ended_at, first_at - sent_at, "".join(map(text_of, events)), ids,
                  usage["prompt_tokens"],
                  (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
                  usage["completion_tokens"])
