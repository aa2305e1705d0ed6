"""server/run.sh with stubs for what it calls: which model it serves, which backend it builds."""

import pathlib
import os
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

CMAKE = """#!/bin/sh
echo "$*" >> "$CALLS"
[ "$1" = --build ] && exit 0
while [ "$1" != -B ]; do shift; done
mkdir -p "$2/server" && : > "$2/build.ninja"
cp "$PBSERVE_STUB" "$2/server/pbserve"
"""
PBSERVE = """#!/bin/sh
pwd
printf '%s\\n' "$@"
"""


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Checkout:
    """A checkout that holds run.sh alone; the rest writes down how it was called."""

    def __init__(self, folder):
        self.root = folder / "checkout"
        self.caller = folder / "elsewhere"
        self.cuda = folder / "cuda"
        self.calls = folder / "calls"
        self.caller.mkdir()
        (self.root / "server").mkdir(parents=True)
        shutil.copy(ROOT / "server" / "run.sh", self.root / "server")
        write_program(self.root / "docker" / "install-deps.sh", "#!/bin/sh\n")
        write_program(folder / "bin" / "cmake", CMAKE)
        write_program(folder / "pbserve", PBSERVE)
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "CUDA_HOME": str(self.cuda),
            "CALLS": str(self.calls), "PBSERVE_STUB": str(folder / "pbserve")}

    def run(self, *flags):
        """(pbserve's folder, its arguments)"""
        self.calls.write_text("")
        done = subprocess.run([self.root / "server" / "run.sh", *flags], cwd=self.caller,
                              env=self.environment, check=True, capture_output=True, text=True)
        folder, *arguments = done.stdout.split("\n")[:-1]
        return folder, [argument for argument in arguments if argument]

    def configured(self):
        """The arguments of the last run's cmake, where it configured."""
        first = self.calls.read_text().splitlines()[0]
        return None if first.startswith("--build") else first


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_the_demo_is_served_when_nothing_names_a_model(checkout):
    demo = ["--model", str(checkout.root / "models" / "demo")]
    assert checkout.run()[1] == demo
    assert checkout.run("--port", "0")[1] == [*demo, "--port", "0"]
    assert checkout.run("--max-model-len", "8k")[1] == [*demo, "--max-model-len", "8k"]


@pytest.mark.parametrize("flags", [["--config", "q.json"], ["--config=q.json"],
                                   ["--port", "0", "--model", "m"], ["--model=m"]])
def test_a_named_model_or_file_is_not_beaten_by_the_demo(checkout, flags):
    assert checkout.run(*flags)[1] == flags


def test_relative_paths_are_the_callers(checkout):
    assert checkout.run("--api-key-file", "keys.txt")[0] == str(checkout.caller)


def test_arguments_with_blanks_stay_whole(checkout):
    assert checkout.run("--config", "a b.json")[1] == ["--config", "a b.json"]


def test_it_is_configured_once(checkout):
    checkout.run()
    assert "-DWITH_CUDA=ON" not in checkout.configured()
    checkout.run()
    assert checkout.configured() is None


def test_nvcc_that_comes_or_goes_configures_again(checkout):
    checkout.run()
    nvcc = checkout.cuda / "bin" / "nvcc"
    write_program(nvcc, "#!/bin/sh\n")
    checkout.run()
    assert f"-DWITH_CUDA=ON -DCMAKE_CUDA_COMPILER={nvcc}" in checkout.configured()
    checkout.run()
    assert checkout.configured() is None
    nvcc.unlink()
    checkout.run()
    assert "-DWITH_CUDA=ON" not in checkout.configured()


def test_a_build_folder_of_unknown_backend_is_configured_again(checkout):
    build = checkout.root / "build" / "release"
    build.mkdir(parents=True)
    (build / "build.ninja").write_text("")
    checkout.run()
    assert "--fresh" in checkout.configured()
