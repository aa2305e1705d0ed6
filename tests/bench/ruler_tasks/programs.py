"""Questions about code: what a function returns, which variables of a chain share a value."""

from collections.abc import Sequence

from .filler import code, prose
from .prompt import Draw, Question
from .retrieval import numbers

VERBS = "build collect compute encode export fetch load measure merge parse render resolve".split()
THINGS = "badge cargo invoice ledger orchard parcel quota ticket vessel voucher widget".split()
PARTS = "bound bucket delta depth index limit margin offset ratio slot total weight".split()

# Bodies that do nothing which would change the value returned.
BODIES = [
    "    for entry in items:\n        if entry.{thing} is None:\n            continue\n"
    "        state.{part} += entry.{thing}\n",
    "    if not items:\n        raise ValueError('a {thing} is needed')\n"
    "    state.{part} = max(state.{part}, len(items))\n",
    "    try:\n        state.check_{thing}(items)\n    except KeyError:\n"
    "        state.warn('no {part} for %s', items)\n",
    "    with state.lock:\n        state.{part} = sorted(items, key=lambda x: x.{thing})\n"
    "        state.flush()\n",
]
NUM_FUNCTIONS = 4  # made ones, of which one is asked for
NUM_HOPS = 3


def _function(draw: Draw, name: str, value: str) -> str:
    _, thing, part = name.split("_")
    body = draw.rng.choice(BODIES).format(thing=thing, part=part)
    return f"def {name}(items, state):\n{body}    return {value}\n\n\n"


def returned_value(draw: Draw) -> Question:
    every = [f"{verb}_{thing}_{part}" for verb in VERBS for thing in THINGS for part in PARTS]
    names = draw.rng.sample(every, NUM_FUNCTIONS)
    values = numbers(draw, NUM_FUNCTIONS)
    needles = [_function(draw, name, value) for name, value in zip(names, values)]
    return Question(
        units=code(draw.rng, draw.num_chars),
        answer_tokens=64,
        opening="Read this Python file. I will ask you about one of its functions.\n\n```python\n",
        needles=tuple(zip(draw.depths(NUM_FUNCTIONS), needles)),
        closing=f"```\n\nWhich number does the function `{names[0]}` return?",
        expected=(values[0],),
    )


def _names(draw: Draw, count: int) -> Sequence[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(draw.rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 5))] = None
    return list(names)


def chain(draw: Draw) -> Question:
    """Sentences, since models of half a billion parameters see no assignment in VAR X = VAR Y."""
    names = _names(draw, NUM_HOPS + 1)
    value = str(draw.rng.randrange(10_000, 100_000))
    lines = [f"The variable {names[0]} is set to {value}. "]
    lines += [f"The variable {name} is set to the variable {before}. "
              for before, name in zip(names, names[1:])]
    return Question(
        units=prose(draw.rng, draw.num_chars),
        answer_tokens=128,
        opening=("Some variables are set within the following text. Make sure to memorize them. I"
                 " will ask you about the variables afterwards.\n"),
        needles=tuple(zip(sorted(draw.depths(len(lines))), lines)),
        closing=(f"\nWhat are the names of the {len(names)} variables that are set to {value},"
                 " directly or through another variable, in the provided text?"),
        expected=tuple(names),
    )
