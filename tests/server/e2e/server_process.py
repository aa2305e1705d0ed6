"""Starts pbserve with the demo model on free ports, and reads what it says and measures.

PBSERVE_BINARY names the program; PBSERVE_TEST_DEVICE the device, "cpu" unless it says "cuda". A
server told to use a GPU does not start without one.
"""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[3]
BINARY = os.environ["PBSERVE_BINARY"]
START_TIMEOUT_S = 120
DEVICE = os.environ.get("PBSERVE_TEST_DEVICE", "cpu")
# Tests compare texts of requests that had different company. Several servers share a GPU, so none
# takes the share of its memory that is the default; the cache holds sixteen full contexts.
DEVICE_FLAGS = {
    "cpu": ["--device", "cpu"],
    "cuda": ["--device", "cuda", "--kv-cache-memory-bytes", "2G",
             "--set", "device.deterministic=true"],
}[DEVICE]
# How many more tokens a generation needs to take as long as on two CPU cores.
SPEED = {"cpu": 1, "cuda": 10}[DEVICE]


class Server:
    """One process; `with` stops it and checks that it stopped well."""

    def __init__(self, *flags, model="models/demo"):
        command = [BINARY, "--model", model, "--port", "0", "--grpc-port", "0",
                   *DEVICE_FLAGS, *flags]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=self.log)
        self.ports = {}
        self.is_stopping = False
        self._wait_until_ready()

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            found = dict(re.findall(r"(HTTP|gRPC) on 127\.0\.0\.1:(\d+)", self.read_log()))
            if len(found) == 2:
                self.ports = {name: int(port) for name, port in found.items()}
                return
            time.sleep(0.02)
        raise AssertionError("the server did not start:\n" + self.read_log())

    def read_log(self):
        log = self.log.fileno()  # the process writes at the shared offset: it must not move
        return os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")

    def wait_for_log(self, text, timeout_s=10):
        """Lines are written by a thread of their own, after the answer they are about."""
        deadline = time.monotonic() + timeout_s
        while text not in self.read_log():
            assert time.monotonic() < deadline, f"{text} is not in the log:\n" + self.read_log()
            time.sleep(0.02)

    @property
    def port(self):
        return self.ports["HTTP"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_address(self):
        return f"127.0.0.1:{self.ports['gRPC']}"

    def post(self, path, body, **options):
        return requests.post(self.url + path, json=body, timeout=120, **options)

    def complete(self, prompt, **fields):
        """The body of a successful /v1/completions."""
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 8} | fields
        reply = self.post("/v1/completions", body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def metrics(self):
        """name -> value, labels left out; series of one name are added up."""
        values = {}
        for line in requests.get(self.url + "/metrics", timeout=30).text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0]
                values[name] = values.get(name, 0) + float(value)
        return values

    def wait_until_idle(self, timeout_s=60, headers=None):
        """Every request has left the engine, and no page is held by one."""
        deadline = time.monotonic() + timeout_s
        while True:
            load = requests.get(self.url + "/load", headers=headers, timeout=30).json()
            if load["num_running"] + load["num_waiting"] + load["num_pages_used"] == 0:
                return
            assert time.monotonic() < deadline, f"the engine still holds {load}"
            time.sleep(0.05)

    def num_threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def num_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def begin_stop(self):
        """Sends the first SIGTERM; a second one would end the process at once."""
        if not self.is_stopping and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.is_stopping = True

    def stop(self, timeout_s=60):
        self.begin_stop()
        code = self.process.wait(timeout_s)
        assert code == 0, f"exit code {code}\n" + self.read_log()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.process.kill()
            self.process.wait()
        else:
            self.stop()


def wait_until(condition, timeout_s=30):
    """What `condition()` returns once that is true."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return result


def run_in_threads(work, items):
    """The results of work(item), all at once; the first exception is raised."""
    results = [None] * len(items)

    def run(index):
        try:
            results[index] = work(items[index])
        except BaseException as error:  # carried over to the test's thread
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(items))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
