"""The turns of replay.py, added up by their number in the session.

Times are of turns that were answered; those that failed are counted beside them. Two arms are
compared turn by turn, where both answered.
"""

import math
from collections import Counter
from statistics import median

from replay_player import Played

BUCKETS = ((1, 1), (2, 5), (6, 20), (21, math.inf))
QUANTILES = (50, 90, 99)


def quantile(values: list[float], percent: int) -> float | None:
    """The smallest value that so many percent do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def bucket_name(bucket: tuple) -> str:
    first, last = bucket
    if last == math.inf:
        return f"{first}+"
    return f"{first}" if first == last else f"{first}-{last}"


def in_bucket(rows: list[dict], bucket: tuple) -> list[dict]:
    return [row for row in rows if bucket[0] <= row["turn"] <= bucket[1]]


def hit_share(rows: list[dict]) -> float | None:
    """Cached tokens of all prompt tokens; None where a usage does not say."""
    if not rows or any(row["cached_tokens"] is None for row in rows):
        return None
    return sum(row["cached_tokens"] for row in rows) / sum(row["prompt_tokens"] for row in rows)


def times(rows: list[dict]) -> dict:
    """Of some turns: how many, how long, how much of them was cached."""
    answered = [row for row in rows if "error" not in row]
    result = {"turns": len(rows), "failed": len(rows) - len(answered),
              "prompt_tokens_p50": quantile([row["prompt_tokens"] for row in answered], 50),
              "hit_share": hit_share(answered)}
    for name in ("ttft_ms", "total_ms"):
        values = [row[name] for row in answered]
        result |= {f"{name}_p{percent}": quantile(values, percent) for percent in QUANTILES}
    return result


def summary(played: Played) -> dict:
    """All that a run has shown, for one line of the results."""
    answered = [row for row in played.rows if "error" not in row]
    late = [row["late_ms"] for row in played.rows]
    heartbeat = [1000 * seconds for seconds in played.heartbeat_s]
    return {
        "sessions": played.ended, "wall_s": played.wall_s,
        "by_turn": {bucket_name(bucket): times(in_bucket(played.rows, bucket))
                    for bucket in BUCKETS},
        "all": times(played.rows),
        "errors": dict(Counter(row["error"] for row in played.rows if "error" in row)),
        "prompt_tokens": sum(row["prompt_tokens"] for row in answered),
        "output_tokens": sum(row["output_tokens"] for row in answered),
        "said_again_tokens": sum(row["said_again_tokens"] for row in answered),
        "planned_output_tokens": sum(row["planned_output"] for row in answered),
        "prompt_tokens_per_s": sum(row["prompt_tokens"] for row in answered) / played.wall_s,
        "output_tokens_per_s": sum(row["output_tokens"] for row in answered) / played.wall_s,
        "turns_in_flight_max": in_flight_max(answered),
        "client_late_ms": {f"p{percent}": quantile(late, percent) for percent in QUANTILES}
        | {"max": max(late, default=None)},
        "client_heartbeat_ms": {f"p{percent}": quantile(heartbeat, percent)
                                for percent in QUANTILES}
        | {"max": max(heartbeat, default=None)},
    }


def in_flight_max(rows: list[dict]) -> int:
    changes = [(row["at_s"], 1) for row in rows]
    changes += [(row["at_s"] + row["total_ms"] / 1000, -1) for row in rows]
    count = highest = 0
    for _, change in sorted(changes):
        count += change
        highest = max(highest, count)
    return highest


def paired(first: list[dict], second: list[dict]) -> dict:
    """By turn number: how many turns both answered, and the median of second over first."""
    def key(row: dict) -> tuple:
        return row["session"], row["turn"]

    ours = {key(row): row for row in first if "error" not in row}
    pairs = [(ours[key(row)], row) for row in second if "error" not in row and key(row) in ours]
    result = {}
    for bucket in BUCKETS:
        chosen = [pair for pair in pairs if in_bucket([pair[0]], bucket)]
        result[bucket_name(bucket)] = {"turns": len(chosen)} | {
            name: median(b[name] / a[name] for a, b in chosen) if chosen else None
            for name in ("ttft_ms", "total_ms")}
    return result


def _cell(value, form: str) -> str:
    return "" if value is None else format(value, form)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(result: dict) -> str:
    """What summary() made, for people."""
    lines = ["| turn | turns | failed | prompt tokens, p50 | hit share"
             " | first token ms, p50 / p90 / p99 | total ms, p50 / p90 / p99 |",
             "|---|---|---|---|---|---|---|"]
    for name, row in [*result["by_turn"].items(), ("all", result["all"])]:
        spans = [" / ".join(_cell(row[f"{what}_p{percent}"], ".0f") for percent in QUANTILES)
                 if row["turns"] > row["failed"] else "" for what in ("ttft_ms", "total_ms")]
        lines.append(_line([name, str(row["turns"]), str(row["failed"]),
                            _cell(row["prompt_tokens_p50"], "d"), _cell(row["hit_share"], ".3f"),
                            *spans]))
    ended, late, beat = (result[name] for name in ("sessions", "client_late_ms",
                                                   "client_heartbeat_ms"))
    lines += [
        "", f"{sum(ended.values())} sessions: {ended['whole']} whole, {ended['context']} ended"
        f" before max_model_len, {ended['failed']} failed; at most"
        f" {result['turns_in_flight_max']} turns in flight",
        f"{result['wall_s']:.1f} s, {result['prompt_tokens_per_s']:.0f} prompt and"
        f" {result['output_tokens_per_s']:.0f} output tokens a second; the cache held"
        f" {_cell(result['all']['hit_share'], '.3f') or 'an unknown share'} of the input,"
        f" {result['seen_share']:.3f} was planned as seen before",
        f"answers: {result['planned_output_tokens']} tokens planned,"
        f" {result['output_tokens']} drawn, {result['said_again_tokens']} in the next prompts",
        f"this program: turns sent late by p50 {_cell(late['p50'], '.1f')}, p99"
        f" {_cell(late['p99'], '.1f')}, max {_cell(late['max'], '.1f')} ms; pauses too long by p50"
        f" {_cell(beat['p50'], '.1f')}, p99 {_cell(beat['p99'], '.1f')}, max"
        f" {_cell(beat['max'], '.1f')} ms"]
    lines += [f"{count} turns failed: {error}" for error, count in result["errors"].items()]
    return "\n".join(lines)


def paired_table(names: tuple[str, str], pairs: dict) -> str:
    lines = [f"{names[1]} over {names[0]}, turn by turn, medians of the ratio", "",
             "| turn | pairs | first token | total |", "|---|---|---|---|"]
    lines += [_line([name, str(row["turns"]), _cell(row["ttft_ms"], ".3f"),
                     _cell(row["total_ms"], ".3f")]) for name, row in pairs.items()]
    return "\n".join(lines)
