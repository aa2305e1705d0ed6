"""What needles are hidden in: real prose and real code, in an order drawn from a seed.

Prose is Python's own documentation and the haystack, code the standard library: every machine has
both, and no model finds them strange. They depend on the version of Python. Of prose there are
about 150,000 different tokens, of code about 200,000; longer prompts meet some of it again.
"""

import ast
import functools
import itertools
import random
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from pydoc_data.topics import topics

from retrieval_prompts import HAYSTACK

# Tables, grammars and session transcripts are no sentences.
_NO_PROSE = re.compile(r"""[-*=^|<>"_{}]{3}|::=|>>>""")


@functools.cache
def _paragraphs() -> list[str]:
    texts = [topics[name] for name in sorted(topics)] + [HAYSTACK.read_text(encoding="utf-8")]
    found: dict[str, None] = {}  # a set that keeps its order
    for text in texts:
        for block in re.split(r"\n\s*\n", text):
            paragraph = " ".join(block.split())
            if (100 < len(paragraph) < 2000 and re.fullmatch(r"[A-Z].*\.", paragraph)
                    and not _NO_PROSE.search(paragraph)):
                found[paragraph] = None
    return list(found)


@functools.cache
def _functions() -> list[str]:
    """Top-level functions and classes that are short: filler is added one by one."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                block = "\n".join(lines[node.lineno - 1:node.end_lineno])
                if 100 < len(block) < 1500:
                    found[block] = None
    return list(found)


def _take(units: Iterable[str], num_chars: int) -> list[str]:
    taken, size = [], 0
    for unit in itertools.cycle(units):
        if size >= num_chars:
            return taken
        taken.append(unit)
        size += len(unit)


def prose(rng: random.Random, num_chars: int) -> list[str]:
    """Sentences, each with the blank or the line breaks that follow it."""
    paragraphs = rng.sample(_paragraphs(), len(_paragraphs()))
    sentences = [re.sub(r"(?<=[.!?]) (?=[A-Z])", " \n", p).split("\n") for p in paragraphs]
    return _take([unit for parts in sentences for unit in [*parts[:-1], parts[-1] + "\n\n"]],
                 num_chars)


def code(rng: random.Random, num_chars: int) -> list[str]:
    """Functions and classes, each with the empty lines that follow it."""
    blocks = rng.sample(_functions(), len(_functions()))
    return _take([block + "\n\n\n" for block in blocks], num_chars)
