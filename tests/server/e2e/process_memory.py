"""What a server holds in memory, and how to give it less."""

import contextlib
import resource
import time

import pytest


def status_bytes(server, name):
    """A size of /proc/PID/status: VmRSS, VmHWM..."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(name + ":"))
    return int(line.split()[1]) << 10


def rss_bytes(server):
    return status_bytes(server, "VmRSS")


def _is_sanitized(server):
    with open(f"/proc/{server.process.pid}/maps", encoding="ascii") as maps:
        return any("libasan" in line or "libtsan" in line for line in maps)


def assert_rss_returns(server, baseline, slack_bytes=16 << 20, timeout_s=20):
    if _is_sanitized(server):
        return  # keeps what is freed, to find who uses it
    deadline = time.monotonic() + timeout_s
    while rss_bytes(server) > baseline + slack_bytes:
        assert time.monotonic() < deadline, f"{rss_bytes(server)} bytes, {baseline} before"
        time.sleep(0.1)


@contextlib.contextmanager
def spare_memory(server, num_bytes):
    """At most so much address space more than now. Sanitizers abort where malloc fails."""
    if _is_sanitized(server):
        pytest.skip("the server runs under a sanitizer, which aborts without memory")
    limits = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
    resource.prlimit(server.process.pid, resource.RLIMIT_AS,
                     (status_bytes(server, "VmSize") + num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, limits)
