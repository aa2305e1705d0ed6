#!/usr/bin/env python3
"""Replays a Dockerfile without Docker, as root: each stage in a copy of a root file system, COPY by
.dockerignore, RUN by chroot; at the end its command is started and asked for /health.

    debootstrap --variant=minbase bookworm BASE
    tests/docker/replay.py docker/Dockerfile.cpu BASE WORK

    debootstrap --variant=minbase --components=main,universe noble BASE
    cp -a /usr/local/cuda-13.0 BASE/usr/local/cuda
    echo /usr/local/cuda/lib64 > BASE/etc/ld.so.conf.d/cuda.conf && chroot BASE ldconfig
    tests/docker/replay.py docker/Dockerfile.cuda BASE WORK --device cpu \
        --env PATH=/usr/local/cuda/bin:/usr/sbin:/usr/bin:/sbin:/bin

It knows what our Dockerfiles use. Settings of apt in BASE (a proxy, say) are the caller's business.
With --device cpu the image of GPUs is first started as it is, and must refuse where there is none.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import time
import urllib.request

import dockerfile
from dockerfile import ROOT


class Stage:
    def __init__(self, folder, base, environment):
        self.folder = folder
        self.arguments = dict(environment)
        self.directory = "/"
        self.user = "root"
        subprocess.run(["cp", "-a", base, folder], check=True)
        shutil.copy("/etc/resolv.conf", folder / "etc" / "resolv.conf")

    def path(self, name):
        return self.folder / name.lstrip("/")

    def command(self, words):
        """Words of a program that runs in the stage, in mounts and processes of its own. The shell
        stays the first of these, so that all of them end with it."""
        inner = ("mount -t proc proc /proc; cd " + shlex.quote(self.directory) + "; " +
                 shlex.join(words) + "; exit $?")
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", self.folder,
                "/bin/bash", "-c", inner]

    def run(self, text):
        words = ["env", *(f"{name}={value}" for name, value in self.arguments.items()),
                 "DEBIAN_FRONTEND=noninteractive", "/bin/bash", "-o", "pipefail", "-c", text]
        subprocess.run(self.command(words), check=True)

    def copy(self, text, stages):
        *sources, target = [word for word in text.split() if not word.startswith("--")]
        origin = re.search(r"--from=(\w+)", text)
        for source in sources:
            if origin:
                matches, to_name = [stages[origin[1]].path(source)], None
            else:
                matches, to_name = sorted(ROOT.glob(source)), source
            assert matches, f"COPY {source}: nothing there"
            for match in matches:
                self._copy_one(match, target, is_context=to_name is not None)

    def _copy_one(self, source, target, is_context):
        to = self.path(target)
        if target.endswith("/"):
            to.mkdir(parents=True, exist_ok=True)
            to = to / source.name
        to.parent.mkdir(parents=True, exist_ok=True)
        if not is_context or source.is_file():
            shutil.copy2(source, to)
            return
        rules = dockerfile.ignore_rules()
        for file in source.rglob("*"):
            if file.is_file() and not dockerfile.is_ignored(str(file.relative_to(ROOT)), rules):
                place = to / file.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place)


def replay(path, base, work, environment):
    """The last stage."""
    stages, stage = {}, None
    for name, text in dockerfile.instructions(path):
        print(f"== {name} {' '.join(text.split())[:120]}", flush=True)
        if name == "FROM":
            key = text.split(" AS ")[1] if " AS " in text else f"stage{len(stages)}"
            stage = stages[key] = Stage(work / key, base, environment)
        elif name == "RUN":
            stage.run(text)
        elif name == "COPY":
            stage.copy(text, stages)
        elif name == "ARG" and stage is None:
            continue  # for FROM alone
        elif name == "ARG":
            key, _, value = text.partition("=")
            stage.arguments[key] = value
        elif name == "WORKDIR":
            stage.directory = text
            stage.path(text).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            stage.user = text
        elif name not in ("SHELL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            raise ValueError(f"{name} is not known here")
    return stage


def command(path, stage, *more):
    words = dockerfile.json_words(path, "ENTRYPOINT") + dockerfile.json_words(path, "CMD")
    return stage.command(["setpriv", f"--reuid={stage.user}", "--clear-groups", *words,
                          "--host", "127.0.0.1", "--port", "18432", "--no-grpc", *more])


def assert_refuses(words):
    """A container that was given no GPU does not serve on the CPU."""
    ended = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    print(ended.stderr)
    assert ended.returncode == 1 and "no NVIDIA driver" in ended.stderr


def serve(words):
    """Starts the image's command as its user and waits for an answer."""
    with subprocess.Popen(words) as process:
        try:
            for _ in range(240):
                assert process.poll() is None, "the command ended"
                try:
                    with urllib.request.urlopen("http://127.0.0.1:18432/health", timeout=5) as got:
                        print(got.status, got.read().decode())
                        return
                except OSError:
                    time.sleep(0.5)
            raise AssertionError("no answer in two minutes")
        finally:
            process.kill()  # unshare waits through SIGTERM; its shell goes with it


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dockerfile", type=pathlib.Path)
    parser.add_argument("base", type=pathlib.Path, help="a root file system like the FROM image's")
    parser.add_argument("work", type=pathlib.Path, help="an empty folder for the stages")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE",
                        help="what the FROM image sets")
    parser.add_argument("--device", help="started with it, after it has refused without")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it mounts and calls chroot")
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.dockerfile.resolve()
    environment = dict(setting.split("=", 1) for setting in options.env)
    last = replay(path, options.base.resolve(), options.work.resolve(), environment)
    if options.device:
        assert_refuses(command(path, last))
    serve(command(path, last, *(["--device", options.device] if options.device else [])))


if __name__ == "__main__":
    main()
