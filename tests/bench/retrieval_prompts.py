"""Retrieval prompts with a known answer, in the prompt forms of models/demo/README.md (RULER's).

A prompt is haystack text with needles put between any two words, sentence ends or not: so was the
demo model trained. Sampled at temperature 1 behind a prompt's opening and some text, it writes 190
of 214 needles in the middle of a sentence, and a line break behind 5 of 50 lines of a chain.
Every choice comes from a generator seeded by task, length and index alone, so a prompt is the same
on every machine and in every run. Filler is added until the prompt, its answer included, fills the
length that was asked for.
"""

import random
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

HAYSTACK = Path(__file__).parent / "haystack" / "postgresql-15.txt"

# Tokens kept free for the answer: the longest, a UUID under a UUID key, takes about 90.
ANSWER_TOKENS = 128

# The demo model copies words of its training keys; a word it has not met gets another one's ending.
ADJECTIVES = """amber brave broken calm clever distant dusty eager empty faint frozen gentle golden
happy hollow icy jolly keen lively misty noble odd proud quiet rapid silent tiny urban vivid warm
young zesty""".split()
NOUNS = """anchor bottle bridge candle castle desert dragon eagle engine falcon forest garden guitar
hammer harbor island jacket kettle ladder meadow needle orange pencil quarry river saddle temple
umbrella valley window yard zebra""".split()


@dataclass(frozen=True)
class Prompt:
    """What is sent, and what a right answer is."""

    task: str
    text: str
    num_tokens: int
    expected: tuple[str, ...]  # one value, or every variable of the chain
    answer: str  # as the model was trained to write it


@dataclass(frozen=True)
class Question:
    """A prompt without its filler."""

    opening: str
    needles: list[str]  # each with what stands before it; a blank and more text follow
    closing: str
    expected: tuple[str, ...]
    answer: str


def read_words(path: Path = HAYSTACK) -> list[str]:
    """The words of the haystack's sentences, without tables and the like (too long)."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", text)
    return " ".join(part for part in sentences if len(part) < 300).split(" ")


def _word_keys(rng: random.Random, count: int) -> list[str]:
    every = [f"{adjective}-{noun}" for adjective in ADJECTIVES for noun in NOUNS]
    return rng.sample(every, count)


def _uuids(rng: random.Random, count: int) -> list[str]:
    return [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]


def _value_question(rng: random.Random, kind: str, keys: list[str], values: list[str]) -> Question:
    asked, value = rng.choice(list(zip(keys, values)))
    return Question(
        opening=(
            f"Some special magic {kind}s are hidden within the following text. Make sure to"
            f" memorize it. I will quiz you about the {kind}s afterwards.\n"
        ),
        needles=[
            f" One of the special magic {kind}s for {key} is: {val}."
            for key, val in zip(keys, values)
        ],
        closing=f"\nWhat is the special magic {kind} for {asked} mentioned in the provided text?",
        expected=(value,),
        answer=f" The special magic {kind} for {asked} mentioned in the provided text is {value}.",
    )


def one_uuid_in_text(rng: random.Random) -> Question:
    return _value_question(rng, "uuid", _word_keys(rng, 1), _uuids(rng, 1))


def one_of_64_numbers(rng: random.Random) -> Question:
    values = [str(number) for number in rng.sample(range(1_000_000, 10_000_000), 64)]
    return _value_question(rng, "number", _word_keys(rng, 64), values)


def one_of_40_uuids(rng: random.Random) -> Question:
    return _value_question(rng, "uuid", _uuids(rng, 40), _uuids(rng, 40))


def chain_of_4_hops(rng: random.Random) -> Question:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names: list[str] = []
    while len(names) < 5:
        name = "".join(rng.choice(letters) for _ in range(5))
        if name not in names:
            names.append(name)
    value = str(rng.randrange(10_000, 100_000))
    lines = [f"\nVAR {names[0]} = {value}"]
    lines += [f"\nVAR {name} = VAR {before}" for before, name in zip(names, names[1:])]
    return Question(
        opening=(
            "Memorize and track the chain(s) of variable assignment hidden in the following"
            " text.\n\n"
        ),
        needles=lines,
        closing=(
            f"\nQuestion: Find all variables that are assigned the value {value} in the text"
            " above."
        ),
        expected=tuple(names),
        answer=(
            " Answer: According to the chain(s) of variable assignment in the text above, 5"
            f" variables are assigned the value {value}, they are: {' '.join(names)}."
        ),
    )


TASKS = {
    "one UUID in text": one_uuid_in_text,
    "one of 64 numbers": one_of_64_numbers,
    "one of 40 UUIDs": one_of_40_uuids,
    "chain of 4 hops": chain_of_4_hops,
}


def _render(question: Question, words: list[str], depths: list[float]) -> str:
    """Needle i goes to the border at share depths[i] of the text; chains keep their order."""
    body = ""
    done = 0
    for needle, depth in zip(question.needles, depths):
        border = round(depth * len(words))
        body += "".join(f" {word}" for word in words[done:border]) + needle
        done = border
    body += "".join(f" {word}" for word in words[done:])
    text = question.opening + body.removeprefix(" ") + question.closing
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def make_prompt(task: str, length: int, index: int, words: list[str], count_tokens) -> Prompt:
    """The index-th prompt of a task: as much filler as `length` tokens, answer included, hold."""
    rng = random.Random(f"{task}/{length}/{index}")
    question = TASKS[task](rng)
    depths = sorted(rng.random() for _ in question.needles)
    start = rng.randrange(len(words))
    filler = words[start:] + words[:start]

    low, high = 0, len(filler)  # invariant: `low` words fit
    guess = length // 2  # a word has about two tokens: the first probe is close
    fitting = None
    while low < high:
        middle = min(max(guess, low + 1), high)
        text = _render(question, filler[:middle], depths)
        num_tokens = count_tokens(text)
        room = length - ANSWER_TOKENS - num_tokens
        if room >= 0:
            low, fitting = middle, (text, num_tokens)
        else:
            high = middle - 1
        guess = middle + room // 2 if abs(room) > 4 else (low + high + 1) // 2
    if fitting is None:
        raise ValueError(f"{task}: {length} tokens do not hold the needles")
    return Prompt(task, *fitting, question.expected, question.answer)


def is_hit(prompt: Prompt, answer: str) -> bool:
    """The value is in the answer as a word of its own; of a chain, all variables and no other."""
    if len(prompt.expected) > 1:
        return set(re.findall(r"\b[A-Z]{5}\b", answer)) == set(prompt.expected)
    return prompt.expected[0] in re.findall(r"[\w-]+", answer)
