"""What an operator reads before the first request: help, version, warnings and refusals."""

import os
import subprocess

from server_process import BINARY, ROOT, Server

NO_GPU = os.environ | {"CUDA_VISIBLE_DEVICES": ""}


def run(*flags, env=None):
    """(exit status, stdout, stderr) of a start that ends by itself."""
    done = subprocess.run([BINARY, *flags], cwd=ROOT, env=env, capture_output=True, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def has_cuda():
    return "no CUDA" not in run("--version")[1]


def lines_with(text, log):
    return [line for line in log.splitlines() if text in line]


def test_a_gpu_that_was_asked_for_is_not_replaced_by_the_cpu():
    status, _, log = run("--model", "models/demo", "--device", "cuda", "--port", "0",
                         "--grpc-port", "0", env=NO_GPU)
    assert status == 1
    assert len(lines_with(" E ", log)) == 1
    assert ("GPU" in log or "driver" in log) if has_cuda() else "no CUDA" in log


def test_auto_that_falls_back_to_the_cpu_warns_once(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with Server("--device", "auto") as running:
        warned = lines_with("auto serves on the CPU", running.read_log())
        # Without CUDA there is a warning where the machine has a GPU, and none elsewhere.
        assert len(warned) == 1 if has_cuda() else len(warned) <= 1
        assert all(" W " in line and "--device cuda" in line for line in warned)


def test_the_cpu_that_was_asked_for_is_no_warning():
    with Server("--device", "cpu") as running:
        assert "auto serves on the CPU" not in running.read_log()
