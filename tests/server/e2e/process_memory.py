"""What a server holds in memory."""

import time


def _status(server, name):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(name + ":"))
    return int(line.split()[1]) << 10


def rss_bytes(server):
    return _status(server, "VmRSS")


def assert_rss_returns(server, baseline, slack_bytes=16 << 20, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while rss_bytes(server) > baseline + slack_bytes:
        assert time.monotonic() < deadline, f"{rss_bytes(server)} bytes, {baseline} before"
        time.sleep(0.1)
