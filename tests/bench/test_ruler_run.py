"""A run of ruler.py: what it asks, what it skips, how it adds up; once against the real server."""

import argparse
import json
import os
from pathlib import Path

import pytest

import ruler
import ruler_arms
from bench_server import ROOT, BenchServer
from ruler_arms import Arm, connect, parse_mode
from ruler_results import Results, has_answer, load, tables
from test_ruler import count_tokens

INFO = {"model": "m", "device": "d", "sparse_attention": "s", "max_model_len": 32768}


def row(arm: str, index: int, score: float, **fields) -> dict:
    return {"model": "m", "device": "d", "seed": "1", "task": "single", "length": 4096,
            "index": index, "arm": "", "mode": arm, "score": score, "digest": f"{index}",
            "density": 1.0, "prefill_ms": 10.0, "cached_tokens": 0, "parallel": 1} | fields


def cells_of(table: str, start: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


ROWS = [row("dense", i, s) for i, s in enumerate([1, 1, 0.5, 0])] + [
    row("pbs", i, s, density=d, coverage=0.9, prefill_ms=t)
    for i, (s, d, t) in enumerate([(1, 0.2, 5), (0.25, 0.3, 6), (0.75, 0.4, 7), (0, 0.5, 90)])]


def test_arms_are_compared_prompt_by_prompt():
    results = Results(ROWS)
    assert results.arms == ["dense", "pbs"]
    assert results.score("dense", has_answer) == 2.5
    assert results.score("pbs", has_answer) == 2
    assert results.won_and_lost("pbs", has_answer) == (1, 1)
    assert results.won_and_lost("dense", has_answer) == (0, 0)


def test_tables_add_up():
    table = tables(ROWS)
    assert cells_of(table, "| 4096 | dense") == [
        "4096", "dense", "2.5 / 4", "1.000", "+0 -0", "1.000", "", "10"]
    for start in ("| 4096 | pbs", "| all | pbs"):
        assert cells_of(table, start)[1:] == [
            "pbs", "2.0 / 4", "0.800", "+1 -1", "0.350", "0.900", "6"]
    assert cells_of(table, "| single") == ["single", "4096", "4", "2.5", "2.0 (+1 -1)"]
    assert cells_of(table, "| sum") == ["sum", "", "4", "2.5", "2.0 (+1 -1)"]


def test_continuations_stay_out_of_the_sums():
    agree = [row("dense", 0, 1, task="agree"), row("pbs", 0, 0.5, task="agree")]
    table = tables(ROWS + agree)
    assert cells_of(table, "| agree") == ["agree", "4096", "1", "1.0", "0.5 (+0 -1)"]
    assert cells_of(table, "| sum") == ["sum", "", "4", "2.5", "2.0 (+1 -1)"]
    assert cells_of(table, "| all | pbs")[2] == "2.0 / 4"


def test_prompts_that_one_arm_lacks_are_left_out():
    table = tables(ROWS + [row("dense", 9, 1)])
    assert "1 prompts that not every arm" in table
    assert cells_of(table, "| sum")[2:] == ["4", "2.5", "2.0 (+1 -1)"]


def test_times_of_shared_or_cached_prompts_do_not_count():
    table = tables([row("dense", 0, 1), row("dense", 1, 1, prefill_ms=99, parallel=2),
                    row("dense", 2, 1, prefill_ms=99, cached_tokens=128)])
    assert cells_of(table, "| all")[-1] == "10"


def test_answers_to_different_prompts_are_no_pair():
    with pytest.raises(ValueError, match="different prompts"):
        tables([row("dense", 0, 1), row("pbs", 0, 1, digest="other")])


def test_modes_are_read():
    assert parse_mode("dense", [""]) == (None, "dense", {"mode": "dense"})
    assert parse_mode("pbs:0.6", [""]) == (None, "pbs:0.6", {"mode": "pbs", "threshold": 0.6})
    assert parse_mode("a/auto", ["a", "b"]) == ("a", "auto", {"mode": "auto"})
    for wrong in ("sparse", "pbs:high", "pbs:", "c/pbs", ""):
        with pytest.raises(ValueError, match=f"--mode {wrong}: expected"):
            parse_mode(wrong, ["a", "b"])


class FakeClient:
    """A server as far as connect() asks it."""

    def __init__(self, url: str, api_key: str | None):
        self.url = url

    def get(self, path: str) -> dict:
        assert path == "/server_info"
        return INFO | {"model": "other" if "other" in self.url else "m"}


def test_arms_are_modes_on_servers(monkeypatch):
    monkeypatch.setattr(ruler_arms, "Client", FakeClient)
    arms = connect(["a=http://a", "b=http://b"], "", ["a/dense", "pbs"], 8192)
    assert [(arm.label, arm.mode) for arm in arms] == [("a", "dense"), ("a", "pbs"), ("b", "pbs")]
    assert [arm.label for arm in connect(["http://a"], "x", ["dense"], 8192)] == ["x"]
    with pytest.raises(ValueError, match="--lengths 65536: max_model_len .* a is 32768"):
        connect(["a=http://a"], "", ["dense"], 65536)
    with pytest.raises(ValueError, match="share a model"):
        connect(["a=http://a", "b=http://other"], "", ["dense"], 8192)
    with pytest.raises(ValueError, match="has the name 'a' already"):
        connect(["a=http://a", "a=http://b"], "", ["dense"], 8192)


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """What was asked, of arms that answer what `pbs` gets wrong and every other mode right."""
    calls = []

    def ask(arm, prompt):
        calls.append((arm.mode, prompt.digest))
        answer = "no" if arm.mode == "pbs" else " ".join(prompt.expected)
        return {"answer": answer, "prompt_tokens": prompt.num_tokens, "cached_tokens": 0,
                "density": 1.0, "prefill_ms": 1.0}

    monkeypatch.setattr(ruler, "ask", ask)
    monkeypatch.setattr(ruler, "tokens_of", lambda client, text: list(text.encode()))
    monkeypatch.setattr(ruler, "count_tokens", lambda client, *text: count_tokens(*text))
    return calls


def run(out: Path, modes: list[str], prompts: int = 2, parallel: int = 1) -> None:
    arguments = argparse.Namespace(seed="1", tasks=["single", "agree"], lengths=[2048], first=0,
                                   prompts=prompts, parallel=parallel, out=out)
    ruler.Run([Arm("", mode, {}, None, INFO) for mode in modes], arguments).all()


def test_a_run_goes_on_where_it_stopped(asked, tmp_path):
    out = tmp_path / "ruler.jsonl"
    run(out, ["dense", "pbs"])
    assert len(asked) == 8
    assert asked[0][1] == asked[1][1], "the arms take turns"
    lines = out.read_text().splitlines()
    run(out, ["dense", "pbs"])
    assert len(asked) == 8 and out.read_text().splitlines() == lines

    out.write_text("".join(f"{line}\n" for line in lines[:-1]))
    run(out, ["dense", "pbs"])
    assert asked[8:] == asked[7:8]
    assert out.read_text().splitlines()[-1].split('"model"')[1] == lines[-1].split('"model"')[1]

    run(out, ["dense", "pbs", "auto"], prompts=3)
    assert [mode for mode, _ in asked[9:]] == ["auto"] * 4 + ["dense", "pbs", "auto"] * 2
    by_arm = {mode: [r["score"] for r in load(out).values() if r["mode"] == mode]
              for mode in ("dense", "pbs", "auto")}
    assert by_arm == {"dense": [1.0] * 6, "pbs": [0, 0, 0, 0, 0, 0], "auto": [1.0] * 6}


def test_prompts_in_flight_give_the_same_lines(asked, tmp_path):
    def lines_of(name: str) -> list[dict]:
        rows = load(tmp_path / name).values()
        return sorted(({k: v for k, v in r.items() if k not in ("date", "parallel")} for r in rows),
                      key=str)

    run(tmp_path / "one", ["dense", "pbs"], prompts=4)
    run(tmp_path / "four", ["dense", "pbs"], prompts=4, parallel=4)
    assert lines_of("one") == lines_of("four") and len(lines_of("four")) == 16


def test_against_the_server(tmp_path, capsys):
    """The demo model finds one number; whatever pbs answers, every line has what it should."""
    binary = Path(os.environ.get("PBSERVE_BINARY", ROOT / "build/test/server/pbserve"))
    out = tmp_path / "ruler.jsonl"
    with BenchServer(binary, ROOT / "models" / "demo", {}, tmp_path / "log") as server:
        arguments = ["--server", f"small={server.url}", "--mode", "dense", "--mode", "pbs:0.6",
                     "--tasks", "single", "agree", "--prompts", "2", "--out", str(out)]
        ruler.main([*arguments, "--lengths", "2048"])
        printed = capsys.readouterr().out
        with pytest.raises(SystemExit, match="--lengths 40000: max_model_len .* is 32768"):
            ruler.main([*arguments, "--lengths", "40000"])
        ruler.main([*arguments, "--summary"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8
    assert [r["score"] for r in rows if r["mode"] == "dense"] == [1] * 4
    assert {r["density"] == 1 for r in rows if r["mode"] == "dense"} == {True}
    assert {r["density"] < 1 for r in rows if r["mode"] == "pbs:0.6"} == {True}
    for line in rows:
        assert line["cached_tokens"] == 0 and line["prefill_ms"] > 0 and line["model"] == "demo"
        assert 1500 < line["prompt_tokens"] < 2048
    assert cells_of(printed, "| single")[:4] == ["single", "2048", "2", "2.0"]
    assert capsys.readouterr().out == printed
