"""What an operator relies on: probes, signals, key reloads, an end within its time."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
import requests

from raw_http import RawConnection
from server_process import BINARY, DEVICE_FLAGS, ROOT, Server, wait_until

LONG = "Files and directories are listed by name. " * 2500  # some 20K tokens


def admin_url(log):
    found = re.search(r"admin on (\S+)", log)
    return f"http://{found[1]}" if found else None


def status(url):
    return requests.get(url, timeout=10).status_code


class LoadingServer:
    """Loads for ever: its weights are a pipe that nobody writes to."""

    def __init__(self, folder):
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "models" / "demo" / name, folder)
        os.mkfifo(folder / "model.safetensors")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "--model", folder, "--port", "0", "--grpc-port", "0", "--admin-port", "0",
                 *DEVICE_FLAGS], cwd=ROOT, stderr=log)
        self.admin = wait_until(lambda: admin_url(self.log.read_text()))


@pytest.fixture
def loading(tmp_path):
    server = LoadingServer(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_load(loading, number):
    loading.process.send_signal(number)
    assert loading.process.wait(10) == -number
    assert "stopped while the model was loaded" in loading.log.read_text()


def test_a_key_reload_does_not_end_a_load(loading):
    loading.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert loading.process.poll() is None


def test_the_admin_port_is_alive_and_not_ready_while_a_model_loads(loading):
    assert status(loading.admin + "/health") == 200
    assert status(loading.admin + "/ready") == 503
    assert status(loading.admin + "/metrics") == 503


def test_the_admin_port_needs_no_key_and_serves_nothing_else():
    with Server("--admin-port", "0", "--api-key", "secret") as server:
        admin = admin_url(server.read_log())
        for path in ("/health", "/healthz", "/ready", "/readyz"):
            assert status(admin + path) == 200, path
        metrics = requests.get(admin + "/metrics", timeout=10).text
        assert "pbserve:num_requests_running" in metrics
        for path in ("/v1/models", "/config", "/server_info", "/x"):
            assert status(admin + path) == 404, path
        assert requests.post(admin + "/v1/completions", json={}, timeout=10).status_code == 404


def test_probes_answer_on_the_admin_port_while_every_connection_is_taken():
    with Server("--admin-port", "0", "--set", "http.max_connections=8") as server:
        admin = admin_url(server.read_log())
        idle = [RawConnection(server) for _ in range(20)]
        time.sleep(0.3)
        assert status(admin + "/ready") == 200
        for connection in idle:
            connection.close()


def test_metrics_tell_of_the_process_and_take_another_prefix():
    with Server("--metrics-prefix", "vllm") as server:
        metrics = server.metrics()
        assert metrics["vllm:num_requests_running"] == 0
        assert metrics["vllm:cache_config_info"] == 1
        assert not any(name.startswith("pbserve:") for name in metrics)
        assert metrics["process_resident_memory_bytes"] > 10e6
        open_before = metrics["process_open_fds"]
        assert 0 < open_before < metrics["process_max_fds"]
        connections = [RawConnection(server) for _ in range(10)]
        time.sleep(0.3)
        assert server.metrics()["process_open_fds"] >= open_before + 9
        for connection in connections:
            connection.close()
        age_s = time.time() - metrics["process_start_time_seconds"]
        assert -2 < age_s < 120


def test_health_fails_while_the_engine_stands_still():
    """A slice of prefill takes longer than this watchdog waits."""
    with Server("--watchdog-s", "0.02", "--admin-port", "0") as server:
        admin = admin_url(server.read_log())
        assert status(admin + "/health") == 200
        prefill = threading.Thread(target=server.complete, args=(LONG,))
        prefill.start()
        wait_until(lambda: status(admin + "/health") == 503)
        prefill.join()
        server.wait_until_idle()
        assert status(admin + "/health") == 200
        assert status(server.url + "/health") == 200


def models_status(server, key):
    return requests.get(server.url + "/v1/models", headers={"Authorization": f"Bearer {key}"},
                        timeout=10).status_code


def reload_keys(server):
    before = server.read_log().count("SIGHUP")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.read_log().count("SIGHUP") > before)


def test_sighup_reads_the_keys_anew(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    with Server("--api-key-file", str(keys)) as server:
        assert models_status(server, "old") == 200
        keys.write_text("new\n")
        reload_keys(server)
        assert models_status(server, "new") == 200
        assert models_status(server, "old") == 401
        assert "new" not in server.read_log().split("SIGHUP")[1]


@pytest.mark.parametrize("spoil", [lambda keys: keys.unlink(), lambda keys: keys.write_text("\n")])
def test_a_broken_key_file_changes_nothing(tmp_path, spoil):
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    with Server("--api-key-file", str(keys)) as server:
        spoil(keys)
        reload_keys(server)
        assert "the API keys stay as they are" in server.read_log()
        assert models_status(server, "old") == 200
        assert models_status(server, "") == 401


def test_drain_delay_takes_requests_and_is_not_ready():
    with Server("--drain-delay", "2") as server:
        begin = time.monotonic()
        server.begin_stop()
        wait_until(lambda: "draining" in server.read_log())
        assert status(server.url + "/ready") == 503
        server.complete("x", max_tokens=1)
        server.stop()
        assert time.monotonic() - begin >= 2


def test_what_is_queued_for_the_workers_does_not_delay_the_end():
    """Four million arrays in each other are slow to parse: the one thread for large bodies takes
    more than a second for each of these, and half a minute for all."""
    nested = "[" * 50 + "]" * 50
    body = ('{"prompt":"x","pad":[' + ",".join([nested] * 80000) + "]}").encode()
    with Server("--shutdown-timeout", "1") as server:
        senders = [threading.Thread(target=quiet_post, args=(server, body)) for _ in range(24)]
        for sender in senders:
            sender.start()
        time.sleep(1.5)  # they are read, and queue
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 10
        for sender in senders:
            sender.join()


def quiet_post(server, body):
    try:
        requests.post(server.url + "/tokenize", data=body, timeout=120)
    except requests.ConnectionError:
        pass  # the server has ended
