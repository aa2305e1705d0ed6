"""A log that nobody reads stops no stream, and does not keep the process."""

import fcntl
import re
import subprocess
import time

import requests

from server_process import BINARY, DEVICE_FLAGS, ROOT

PIPE_BYTES = 4096  # the smallest pipe: some thirty lines
REQUESTS = 60


def start_with_a_pipe():
    process = subprocess.Popen(
        [BINARY, "--model", "models/demo", "--port", "0", "--no-grpc", *DEVICE_FLAGS], cwd=ROOT,
        stderr=subprocess.PIPE)
    for line in process.stderr:
        found = re.search(rb"HTTP on 127\.0\.0\.1:(\d+)", line)
        if found:
            return process, f"http://127.0.0.1:{int(found.group(1))}"
    raise AssertionError("the server did not start")


def test_a_stalled_log_stops_no_request_and_no_shutdown():
    process, url = start_with_a_pipe()
    try:
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for _ in range(REQUESTS):
            reply = requests.post(url + "/v1/completions",
                                  json={"prompt": "The ls command", "max_tokens": 2}, timeout=20)
            assert reply.status_code == 200
        begin = time.monotonic()
        process.terminate()
        assert process.wait(20) == 0
        assert time.monotonic() - begin < 15
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_last_lines_are_written():
    process, url = start_with_a_pipe()
    requests.post(url + "/v1/completions",
                  json={"prompt": "x", "max_tokens": 1, "request_id": "last-1"}, timeout=20)
    process.terminate()
    log = process.stderr.read().decode()
    assert process.wait(20) == 0
    assert "id=last-1 status=200" in log
    assert log.rstrip().endswith("stopped")
