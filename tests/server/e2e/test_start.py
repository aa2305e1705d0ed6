"""What an operator reads before the first request: help, version, warnings and refusals."""

import os
import subprocess

import requests

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


def test_a_name_that_is_no_folder_says_how_to_get_it():
    status, _, log = run("--model", "Qwen/Qwen3-8B")
    assert status == 1
    assert "hf download Qwen/Qwen3-8B --local-dir Qwen3-8B" in log


def test_a_folder_for_a_config_file_is_an_error():
    status, _, log = run("--config", "configs")
    assert status == 1
    assert len(lines_with(" E configs: is a folder", log)) == 1


def test_a_hosts_name_is_served_at_its_address():
    with Server("--host", "localhost") as running:
        assert running.complete("x", max_tokens=1)


def first_lines(*flags, until):
    """The log of a start, up to a text."""
    command = [BINARY, "--model", "models/demo", "--device", "cpu", "--port", "0", "--grpc-port",
               "0", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if until in line:
                break
        process.terminate()
        process.stderr.read()
    return "".join(lines)


def test_open_to_other_machines_without_a_key_is_a_warning():
    text = "no API key is set"
    assert " W " in lines_with(text, first_lines("--host", "0.0.0.0", until="HTTP on"))[0]
    assert " I " in lines_with(text, first_lines(until="HTTP on"))[0]
    keyed = first_lines("--host", "0.0.0.0", "--api-key", "k", until="HTTP on")
    assert text not in keyed


def test_keys_of_the_environment_count_and_are_not_shown(monkeypatch):
    monkeypatch.setenv("PBSERVE_API_KEYS", "first-secret,second-secret")
    with Server() as running:
        body = {"prompt": "x", "max_tokens": 1}
        assert running.post("/v1/completions", body).status_code == 401
        headers = {"Authorization": "Bearer second-secret"}
        assert running.post("/v1/completions", body, headers=headers).status_code == 200
        shown = requests.get(running.url + "/config", headers=headers, timeout=30).text
        assert "secret" not in shown and "(hidden)" in shown
        assert "secret" not in running.read_log()


def test_config_shows_the_values_in_force():
    with Server() as running:
        shown = requests.get(running.url + "/config", timeout=30).json()
        info = requests.get(running.url + "/server_info", timeout=30).json()
        assert shown["model"]["max_model_len"] == info["max_model_len"] == 32768
        assert shown["model"]["served_name"] == "demo"
        assert shown["pbs"]["min_tokens"] >= 1024
        assert shown["pbs"]["threshold"] == 0.933 and shown["pbs"]["selector"] == "error_bound"
        assert shown["device"]["kind"] in ("cpu", "cuda")
        assert shown["device"]["kv_cache_bytes"] >= info["num_pages"] * info["page_size"]
        if shown["device"]["kind"] == "cpu":
            assert shown["device"]["cpu_threads"] >= 1


def test_a_host_tier_brings_evicted_prefixes_back():
    prompts = [[first + i % 700 for i in range(2000)] for first in (300, 1300, 2300, 3300)]
    with Server("--max-model-len", "4096", "--set", "device.kv_cache_bytes=20M",
                "--kv-offload-bytes", "64M") as running:
        assert "host tier of the KV cache" in running.read_log()
        shown = requests.get(running.url + "/config", timeout=30).json()
        assert 63 << 20 < shown["device"]["kv_offload_bytes"] <= 64 << 20
        answers = [running.complete(prompt) for prompt in prompts]
        again = running.complete(prompts[0])
        assert again["choices"][0]["text"] == answers[0]["choices"][0]["text"]
        cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached == 1920, "15 whole pages"
        running.wait_until_idle()
        text = requests.get(running.url + "/metrics", timeout=30).text
        assert 'kv_cache_tier_hits_total{model_name="demo",tier="host"} 15' in text
        assert 'kv_cache_tier_copied_pages_total{model_name="demo",tier="device"} 15' in text
