"""Numbers and UUIDs under keys, in prose; the questions are RULER's, which small models answer."""

import uuid
from collections.abc import Sequence

from retrieval_prompts import ADJECTIVES, NOUNS

from .filler import prose
from .prompt import Draw, Question


def _keys(draw: Draw, count: int) -> list[str]:
    return draw.rng.sample([f"{first}-{last}" for first in ADJECTIVES for last in NOUNS], count)


def numbers(draw: Draw, count: int) -> list[str]:
    return [str(n) for n in draw.rng.sample(range(1_000_000, 10_000_000), count)]


def _ask(draw: Draw, kind: str, keys: Sequence[str], values: Sequence[str], num_asked: int,
         answer_tokens: int) -> Question:
    """The first `num_asked` keys are asked for."""
    needles = [f"One of the special magic {kind}s for {key} is: {value}. "
               for key, value in zip(keys, values)]
    what = f"is the special magic {kind} for {keys[0]}"
    if num_asked > 1:
        listed = ", ".join(keys[:num_asked - 1])
        what = f"are all the special magic {kind}s for {listed}, and {keys[num_asked - 1]}"
    return Question(
        units=prose(draw.rng, draw.num_chars),
        answer_tokens=answer_tokens,
        opening=(f"Some special magic {kind}s are hidden within the following text. Make sure to"
                 f" memorize it. I will quiz you about the {kind}s afterwards.\n"),
        needles=tuple(zip(draw.depths(len(keys)), needles)),
        closing=f"\nWhat {what} mentioned in the provided text?",
        expected=tuple(values[:num_asked]),
    )


def single(draw: Draw) -> Question:
    return _ask(draw, "number", _keys(draw, 1), numbers(draw, 1), 1, answer_tokens=64)


def mk4(draw: Draw) -> Question:
    return _ask(draw, "number", _keys(draw, 4), numbers(draw, 4), 1, answer_tokens=64)


def mk16(draw: Draw) -> Question:
    return _ask(draw, "number", _keys(draw, 16), numbers(draw, 16), 1, answer_tokens=64)


def multi(draw: Draw) -> Question:
    return _ask(draw, "number", _keys(draw, 4), numbers(draw, 4), 4, answer_tokens=192)


def one_uuid(draw: Draw) -> Question:
    value = str(uuid.UUID(int=draw.rng.getrandbits(128), version=4))
    return _ask(draw, "uuid", _keys(draw, 1), [value], 1, answer_tokens=96)
