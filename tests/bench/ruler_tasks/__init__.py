"""Long prompts with a known answer, for any chat model: tasks in RULER's style and how to score.

A prompt follows from (seed, task, length, index) alone, beside the tokenizer and the version of
Python. The index moves the needle: depths of consecutive indices are spread evenly over the text.
"""

import random
import re
from collections.abc import Callable

from .counting import common_words
from .filler import code, prose
from .programs import chain, returned_value
from .prompt import Draw, Prompt, Question, fit
from .retrieval import mk4, mk16, multi, one_uuid, single

GOLDEN_RATIO = 0.6180339887498949  # its multiples modulo 1 leave no gap, wherever they begin
AGREE_TOKENS = 64


def agree(draw: Draw) -> Question:
    """No question: real text or code to go on with. The modes' continuations are compared."""
    filler = draw.rng.choice([prose, code])
    return Question(filler(draw.rng, draw.num_chars), AGREE_TOKENS, is_chat=False)


TASKS: dict[str, Callable[[Draw], Question]] = {
    "single": single,
    "mk4": mk4,
    "mk16": mk16,
    "uuid": one_uuid,
    "multi": multi,
    "code": returned_value,
    "chain": chain,
    "common": common_words,
    "agree": agree,
}


def make_question(seed: str, task: str, length: int, index: int) -> Question:
    first = random.Random(f"{seed}/{task}/{length}").random()
    rng = random.Random(f"{seed}/{task}/{length}/{index}")
    return TASKS[task](Draw(rng, (first + index * GOLDEN_RATIO) % 1, length))


def make_prompt(seed: str, task: str, length: int, index: int,
                count: Callable[[str, bool], int]) -> Prompt:
    """`count`: tokens of a text, as a chat's only message or as it is."""
    question = make_question(seed, task, length, index)
    try:
        return fit(question, length, lambda text: count(text, question.is_chat))
    except ValueError as error:
        raise ValueError(f"{task}: {error}") from error


def score(expected: tuple[str, ...], answer: str) -> float:
    """The share of the values that the answer holds, each as a word of its own.

    Case and thousands separators do not count, nor what else is said.
    """
    answer = re.sub(r"(?<=\d)[,_](?=\d{3})", "", answer)
    found = [re.search(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", answer, re.I)
             for value in expected]
    return sum(map(bool, found)) / len(expected)


def agreement(base: list[int], tokens: list[int]) -> float:
    """The share of positions where two continuations have the same token."""
    longest = max(len(base), len(tokens))
    return sum(a == b for a, b in zip(base, tokens)) / longest if longest else 1.0
