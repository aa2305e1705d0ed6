"""A question hidden in filler, cut to a length in tokens with few calls to a tokenizer."""

import hashlib
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

COUNTS_MAX = 6  # calls to the tokenizer for one prompt
CHARS_PER_TOKEN_MAX = 8  # of filler: more is never made


@dataclass(frozen=True)
class Draw:
    """What a task is made from: everything random about it, where it hides things, its size."""

    rng: random.Random
    depth: float  # of the first needle, a share of the text
    length: int  # tokens of prompt and answer together

    def depths(self, count: int) -> list[float]:
        """The first needle's depth, then the others', evenly spread around the text."""
        return [(self.depth + i / count) % 1 for i in range(count)]

    @property
    def num_chars(self) -> int:
        """Of filler: as much as may be needed."""
        return self.length * CHARS_PER_TOKEN_MAX


@dataclass(frozen=True)
class Question:
    """A prompt that is not yet cut to its length."""

    units: list[str]  # the filler, from its beginning on as much as there is room for
    answer_tokens: int  # kept free for the answer, and its limit
    opening: str = ""
    needles: tuple[tuple[float, str], ...] = ()  # (depth, text)
    closing: str = ""
    expected: tuple[str, ...] = ()  # values of the right answer; none: the text is continued
    is_chat: bool = True


@dataclass(frozen=True)
class Prompt:
    """What is sent, and what a right answer is."""

    text: str
    num_tokens: int
    answer_tokens: int
    expected: tuple[str, ...]
    is_chat: bool

    @property
    def digest(self) -> str:
        """Tells whether two lines of a results file really are about the same prompt."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def render(question: Question, num_units: int) -> str:
    """A needle goes to the border of units that comes next after its share of the characters."""
    units = question.units[:num_units]
    ends = list(accumulate(map(len, units), initial=0))
    parts, done = [question.opening], 0
    for depth, needle in sorted(question.needles):
        border = bisect_left(ends, depth * ends[-1])
        parts += [*units[done:border], needle]
        done = border
    return "".join([*parts, *units[done:], question.closing])


def fit(question: Question, length: int, count: Callable[[str], int]) -> Prompt:
    """As much filler as `length` tokens, answer included, hold; `count` tells a prompt's tokens.

    Characters predict tokens so well that the second or third count is mostly close enough.
    """
    ends = list(accumulate(map(len, question.units), initial=0))
    room = length - question.answer_tokens
    enough = max(16, length // 256)  # tokens that may stay free
    low, high = -1, len(question.units)  # `low` units fit, more than `high` do not
    num_units = bisect_right(ends, 4 * (room - 100)) - 1  # about four characters a token
    fitting = None
    for _ in range(COUNTS_MAX):
        num_units = min(max(num_units, low + 1), high)
        text = render(question, num_units)
        num_tokens = count(text)
        free = room - num_tokens
        if free >= 0:
            low, fitting = num_units, (text, num_tokens)
        else:
            high = num_units - 1
        if low >= high or 0 <= free < enough:
            break
        wanted = ends[num_units] + (free - enough / 2) * len(text) / num_tokens
        num_units = bisect_right(ends, wanted) - 1
    if fitting is None:
        raise ValueError(f"{length} tokens do not hold the question, its needles and the answer")
    return Prompt(*fitting, question.answer_tokens, question.expected, question.is_chat)
