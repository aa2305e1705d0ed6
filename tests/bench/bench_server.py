"""A pbserve process on a free port, and JSON calls to it; python standard library only."""

import json
import random
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Client:
    """JSON calls to a server that runs already."""

    def __init__(self, url: str, api_key: str | None = None):
        self.url = url.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if api_key:
            self.headers["Authorization"] = f"Bearer {api_key}"

    def post(self, path: str, body: dict | bytes, timeout_s: float = 1800) -> dict:
        """`body`: bytes are JSON already."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self._read(path, data, timeout_s))

    def get(self, path: str) -> dict:
        return json.loads(self._read(path, None, timeout_s=30))

    def machine(self) -> str:
        """The GPU, or the processor and its threads, as the server names it."""
        return self.get("/server_info")["device"]

    def metric(self, name: str) -> float:
        """The sum of a metric's series; `name` without the prefix."""
        text = self._read("/metrics", None, timeout_s=30).decode()
        values = re.findall(rf"^pbserve:{name}(?:{{.*}})? (\S+)$", text, re.M)
        if not values:
            raise RuntimeError(f"/metrics has no pbserve:{name}")
        return sum(map(float, values))

    def count_tokens(self, text: str) -> int:
        return self.post("/tokenize", {"prompt": text, "add_special_tokens": False})["count"]

    def _read(self, path: str, data: bytes | None, timeout_s: float) -> bytes:
        request = urllib.request.Request(self.url + path, data, self.headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from error


class BenchServer(Client):
    """Started on entry, stopped on exit. What it logs goes to `log_path`, for reading the port."""

    def __init__(self, binary: Path, model: Path, settings: dict[str, str], log_path: Path):
        super().__init__(url="")  # known when the port is
        self.log_path = log_path
        self.command = [str(binary), "--model", str(model), "--port", "0", "--no-grpc"]
        for key, value in settings.items():
            self.command += ["--set", f"{key}={value}"]

    def __enter__(self) -> "BenchServer":
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        try:
            self.url = self._wait_for_port(timeout_s=120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_for_port(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            log = self.log_path.read_text(errors="replace")
            if found := re.search(r"HTTP on (\S+:\d+)", log):
                return f"http://{found[1]}"
            if self.process.poll() is not None:
                raise RuntimeError(f"{' '.join(self.command)} ended:\n{log}")
            time.sleep(0.05)
        raise RuntimeError(f"no port after {timeout_s} s:\n{log}")


def random_ids(count: int, vocab_size: int, seed: str) -> list[int]:
    """A prompt of random tokens, the same for the same seed."""
    source = random.Random(seed)
    return [source.randrange(1, vocab_size) for _ in range(count)]


def commit_id() -> str:
    """The commit measured; '+' marks a working tree that differs from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
