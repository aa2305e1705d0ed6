"""What can be known of the images without Docker: sources, flags, device, shells, compose."""

import os
import re
import subprocess

import pytest
import yaml

import dockerfile
from dockerfile import ROOT

BINARY = os.environ["PBSERVE_BINARY"]
IMAGES = {"cpu": ROOT / "docker" / "Dockerfile.cpu", "cuda": ROOT / "docker" / "Dockerfile.cuda"}
COMPOSE = ROOT / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def known_flags():
    text = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^\s+(?:-\w,)?(--[\w-]+)", text, re.MULTILINE))


@pytest.fixture(params=IMAGES)
def device(request):
    return request.param


def command_of(device):
    path = IMAGES[device]
    return dockerfile.json_words(path, "ENTRYPOINT") + dockerfile.json_words(path, "CMD")


def flags_of(words):
    return {word.split("=")[0] for word in words if word.startswith("--")}


def test_every_source_is_there_and_in_the_build_context(device):
    rules = dockerfile.ignore_rules()
    tracked = dockerfile.tracked_files()
    sources = dockerfile.copied_sources(IMAGES[device])
    assert sources
    for source in sources:
        matches = list(ROOT.glob(source))
        assert matches, source
        for match in matches:
            name = str(match.relative_to(ROOT))
            below = [file for file in tracked if file == name or file.startswith(name + "/")]
            assert below, f"{name} is not part of the repository"
            assert [file for file in below if dockerfile.is_ignored(file, rules)] == []


def test_weights_stay_outside(device):
    sources = dockerfile.copied_sources(IMAGES[device])
    assert "models" not in sources and "." not in sources
    rules = dockerfile.ignore_rules()
    for name in ("models/Llama-3.1-8B/model-00001-of-00004.safetensors", "models/w.safetensors",
                 "models/Qwen3-8B/config.json", "build/test/server/pbserve", ".git/config",
                 "tests/run.sh", "keys.txt", "kernels/__pycache__/a.pyc"):
        assert dockerfile.is_ignored(name, rules), name
    for name in ("models/demo/model.safetensors", "models/config.cc", "server/run.sh",
                 "models/tokenizer/bpe.cc", "docker/install-deps.sh", "CMakeLists.txt"):
        assert not dockerfile.is_ignored(name, rules), name


def test_the_command_has_flags_that_the_program_knows(device, known_flags):
    words = command_of(device)
    assert words[0] == "pbserve"
    assert "--model" in words and len(known_flags) > 20
    assert flags_of(words) <= known_flags


def test_the_device_is_said_and_stays_when_arguments_are_given(device):
    entrypoint = dockerfile.json_words(IMAGES[device], "ENTRYPOINT")
    assert entrypoint[entrypoint.index("--device") + 1] == device


def test_the_cuda_command_does_not_serve_without_a_gpu():
    words = [word.replace("/models/demo", str(ROOT / "models" / "demo")).replace(
        "0.0.0.0", "127.0.0.1") for word in command_of("cuda")]
    done = subprocess.run([BINARY, *words[1:], "--port", "0", "--grpc-port", "0"], timeout=60,
                          env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    assert re.search("GPU|driver|no CUDA", done.stderr), done.stderr


def test_a_failing_command_in_a_pipe_fails_the_build(device):
    for stage in dockerfile.stages(IMAGES[device]):
        names = [name for name, _ in stage]
        assert "RUN" not in names or names.index("SHELL") < names.index("RUN")
        assert all("pipefail" in text for name, text in stage if name == "SHELL")


def test_every_step_is_a_shell_command(device):
    for name, text in dockerfile.instructions(IMAGES[device]):
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", text], check=True)


def test_the_user_is_a_number_and_not_root(device):
    assert [text for name, text in dockerfile.instructions(IMAGES[device])
            if name == "USER"] == ["10001"]


def test_the_driver_is_stated_where_users_look():
    for name in ("docker/Dockerfile.cuda", "docker/README.md", "README.md"):
        text = " ".join((ROOT / name).read_text().split())
        assert re.search(r"driver (# )?580 or newer", text), name


def test_libraries_without_a_package_end_the_list_of_packages(tmp_path):
    for name, text in {"ldd": "echo 'libown.so => /opt/libown.so (0x1)'",
                       "dpkg-query": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([ROOT / "docker" / "install-deps.sh", "runtime", "program"],
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True,
                          check=False)
    assert done.returncode != 0


class TestCompose:
    services = yaml.safe_load(COMPOSE.read_text())["services"]

    def test_images_and_mounted_files_are_there(self):
        for service in self.services.values():
            if "build" in service:
                assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
                assert (ROOT / service["build"]["dockerfile"]).is_file()
            for volume in service.get("volumes", []):
                source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
                assert (COMPOSE.parent / source).exists(), source

    def test_model_is_mounted_where_the_command_looks_and_stands_before_it(self):
        service = self.services["pbserve-cuda"]
        folder = service["command"][service["command"].index("--model") + 1]
        assert any(volume.startswith("${MODEL:-") and volume.split(":")[-2] == folder
                   for volume in service["volumes"])
        usage = [line for line in COMPOSE.read_text().splitlines() if "MODEL=" in line]
        assert usage and all(re.match(r"#\s+MODEL=\S+ docker compose ", line) for line in usage)

    def test_flags_are_known(self, known_flags):
        for name in ("pbserve", "pbserve-cuda"):
            assert flags_of(self.services[name].get("command", [])) <= known_flags

    def test_ports_are_this_machines(self):
        for service in self.services.values():
            assert all(port.startswith("127.0.0.1:") for port in service["ports"])

    def test_keys_come_from_the_environment(self):
        for name in ("pbserve", "pbserve-cuda"):
            assert self.services[name]["environment"] == [
                "PBSERVE_API_KEYS=${PBSERVE_API_KEYS:-}"]
