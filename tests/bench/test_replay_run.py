"""A short run of replay.py with the demo model: both modes, ids and chat, what is written down."""

import json
import os
from pathlib import Path

import pytest

import replay
from bench_server import ROOT, BenchServer

BINARY = Path(os.environ.get("PBSERVE_BINARY", ROOT / "build/test/server/pbserve"))
SMALL = ["--sessions", "2", "--rate", "20", "--turns", "2", "--system-prompts", "1",
         "--system-tokens", "300", "--new-tokens", "20", "--output-tokens", "4",
         "--think-s", "0.01"]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_sessions_in_both_modes(tmp_path, capsys):
    out, turns_out = tmp_path / "replay.jsonl", tmp_path / "turns.jsonl"
    replay.main(["--server-binary", str(BINARY), "--modes", "dense", "pbs", *SMALL,
                 "--set", "device.kind=cpu", "--results", str(out), "--turns-out", str(turns_out)])
    dense, pbs = lines_of(out)
    assert (dense["mode"], pbs["mode"], pbs["over"]) == ("dense", "pbs", "dense")
    for line in (dense, pbs):
        assert line["model"] == "demo" and line["settings"] == {"device.kind": "cpu"}
        assert line["workload"]["seed"] == "1" and line["workload"]["max_model_len"] == 32768
        assert line["sessions"] == {"whole": 2, "context": 0, "failed": 0}
        assert line["output_tokens"] == line["planned_output_tokens"] > 0
        assert line["all"]["turns"] == pbs["paired"]["1"]["turns"] + pbs["paired"]["2-5"]["turns"]
    assert dense["by_turn"]["1"]["hit_share"] < dense["by_turn"]["2-5"]["hit_share"]
    assert dense["by_turn"]["2-5"]["hit_share"] > 0.5, "a turn starts from the one before"
    rows = lines_of(turns_out)
    assert len(rows) == 2 * dense["all"]["turns"]
    assert all(0 < row["ttft_ms"] <= row["total_ms"] for row in rows)
    printed = capsys.readouterr().out
    assert "pbs over dense, turn by turn" in printed and "| 21+ | 0 | 0 |" in printed


def test_a_server_that_runs(tmp_path):
    out = tmp_path / "replay.jsonl"
    common = [*SMALL, "--results", str(out)]
    with BenchServer(BINARY, ROOT / "models" / "demo", {}, tmp_path / "log") as server:
        replay.main(["--base-url", server.url + "/v1", "--chat", "--label", "small", *common])
        with pytest.raises(SystemExit, match=r"replay.py: \d+ turns failed"):
            replay.main(["--base-url", server.url, "--body", '{"ignore_eos": 3}', *common])
        with pytest.raises(SystemExit, match="--mode sparse: expected"):
            replay.main(["--base-url", server.url, "--modes", "sparse", *common])
    chat, failed = lines_of(out)
    assert chat["chat"] and chat["settings"] == "small" and chat["all"]["failed"] == 0
    assert chat["by_turn"]["2-5"]["hit_share"] > 0.3
    assert failed["all"]["failed"] == 2 and failed["sessions"]["failed"] == 2
    assert "ignore_eos" in next(iter(failed["errors"]))
