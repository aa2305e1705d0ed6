"""The results of ruler.py: JSON lines, one an answer, and the tables made from them.

Arms are compared in pairs: only prompts that every arm has answered count, so that no arm gains
from prompts another one has not met.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean, median

Row = dict  # one line

# What names an answer: a line that has all of it in common with another is the same measurement.
KEY = ("model", "seed", "task", "length", "index", "arm", "mode")


def key_of(row: Row) -> tuple:
    return tuple(row[name] for name in KEY)


def load(path: Path) -> dict[tuple, Row]:
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {key_of(row): row for row in rows}


def arm_of(row: Row) -> str:
    return f"{row['arm']} {row['mode']}".strip()


class Results:
    """One model's answers by arm and prompt."""

    def __init__(self, rows: Iterable[Row]):
        self.answers: dict[str, dict[tuple, Row]] = {}
        for row in rows:
            prompt = (row["seed"], row["task"], row["length"], row["index"])
            self.answers.setdefault(arm_of(row), {})[prompt] = row
        every = [set(answers) for answers in self.answers.values()]
        self.prompts = sorted(set.intersection(*every)) if every else []
        self.num_unpaired = len(set().union(*every)) - len(self.prompts)
        for prompt in self.prompts:
            if len({answers[prompt]["digest"] for answers in self.answers.values()}) > 1:
                raise ValueError(f"the arms were asked different prompts {prompt}")

    @property
    def arms(self) -> list[str]:
        return list(self.answers)

    def rows(self, arm: str, wanted: Callable[[Row], bool]) -> list[Row]:
        """In the order of the prompts, so that two arms' rows lie side by side."""
        rows = (self.answers[arm][prompt] for prompt in self.prompts)
        return [row for row in rows if wanted(row)]

    def score(self, arm: str, wanted: Callable[[Row], bool]) -> float:
        return sum(row["score"] for row in self.rows(arm, wanted))

    def won_and_lost(self, arm: str, wanted: Callable[[Row], bool]) -> tuple[int, int]:
        """Prompts on which the arm scored more than the first one, and less."""
        pairs = list(zip(self.rows(arm, wanted), self.rows(self.arms[0], wanted)))
        return (sum(row["score"] > first["score"] for row, first in pairs),
                sum(row["score"] < first["score"] for row, first in pairs))


def has_answer(row: Row) -> bool:
    """Continuations are compared with the first arm's and have no place in a sum of scores."""
    return row["task"] != "agree"


def _mean(rows: list[Row], field: str) -> str:
    values = [row[field] for row in rows if row.get(field) is not None]
    return f"{fmean(values):.3f}" if values else ""


def _prefill(rows: list[Row]) -> str:
    """Only of prompts that had the server to themselves and found nothing in its cache."""
    times = [row["prefill_ms"] for row in rows
             if row["parallel"] == 1 and row["cached_tokens"] == 0]
    return f"{median(times):.0f}" if times else ""


def _length_row(results: Results, title: str, arm: str, wanted: Callable[[Row], bool]) -> str:
    def asked(row: Row) -> bool:
        return wanted(row) and has_answer(row)

    score, first = results.score(arm, asked), results.score(results.arms[0], asked)
    won, lost = results.won_and_lost(arm, asked)
    share = f"{score / first:.3f}" if first else ""
    rows = results.rows(arm, wanted)
    cells = [title, arm, f"{score:.1f} / {len(results.rows(arm, asked))}", share,
             f"+{won} -{lost}", _mean(rows, "density"), _mean(rows, "coverage"), _prefill(rows)]
    return f"| {' | '.join(cells)} |"


def length_table(results: Results) -> str:
    lines = ["| tokens | arm | score | of first | won lost | density | coverage | prefill ms |",
             "|---|---|---|---|---|---|---|---|"]
    for length in sorted({prompt[2] for prompt in results.prompts}):
        lines += [_length_row(results, str(length), arm, lambda row: row["length"] == length)
                  for arm in results.arms]
    lines += [_length_row(results, "all", arm, lambda row: True) for arm in results.arms]
    return "\n".join(lines)


def _task_row(results: Results, task: str, tokens: str, wanted: Callable[[Row], bool]) -> str:
    cells = []
    for arm in results.arms:
        won, lost = results.won_and_lost(arm, wanted)
        pairs = f" (+{won} -{lost})" if won or lost else ""
        cells.append(f"{results.score(arm, wanted):.1f}{pairs}")
    count = len(results.rows(results.arms[0], wanted))
    return f"| {task} | {tokens} | {count} | {' | '.join(cells)} |"


def task_table(results: Results) -> str:
    """Task by task and length by length; the sum leaves continuations out."""
    lines = [f"| task | tokens | prompts | {' | '.join(results.arms)} |",
             "|---|---|---|" + "---|" * len(results.arms)]
    tasks = dict.fromkeys(row["task"] for row in results.answers[results.arms[0]].values())
    for task in tasks:
        for length in sorted({p[2] for p in results.prompts if p[1] == task}):
            lines.append(_task_row(results, task, str(length), lambda row: (
                row["task"] == task and row["length"] == length)))
    return "\n".join([*lines, _task_row(results, "sum", "", has_answer)])


def tables(rows: Iterable[Row]) -> str:
    """Model by model: by length, then by task."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    parts = []
    for model, chosen in by_model.items():
        results = Results(chosen)
        devices = ", ".join(dict.fromkeys(row["device"] for row in chosen))
        parts.append(f"{model} on {devices}: {len(results.prompts)} prompts, won and lost against"
                     f" {results.arms[0]}")
        if results.num_unpaired:
            parts.append(f"{results.num_unpaired} prompts that not every arm has answered are left"
                         " out")
        parts += [length_table(results), task_table(results)]
    return "\n\n".join(parts)
