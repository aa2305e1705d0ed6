#!/usr/bin/env python3
"""Replays a Dockerfile without Docker, as root: each stage in a copy of a root file system, COPY by
.dockerignore, RUN by chroot; at the end its command is started and asked for /health.

    debootstrap --variant=minbase bookworm BASE
    tests/docker/replay.py docker/Dockerfile.cpu BASE WORK

It knows what our Dockerfiles use. Settings of apt in BASE (a proxy, say) are the caller's business.
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
    def __init__(self, folder, base):
        self.folder = folder
        self.arguments = {}
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


def replay(path, base, work):
    """The last stage."""
    stages, stage = {}, None
    for name, text in dockerfile.instructions(path):
        print(f"== {name} {' '.join(text.split())[:120]}", flush=True)
        if name == "FROM":
            key = text.split(" AS ")[1] if " AS " in text else f"stage{len(stages)}"
            stage = stages[key] = Stage(work / key, base)
        elif name == "RUN":
            stage.run(text)
        elif name == "COPY":
            stage.copy(text, stages)
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


def serve(path, stage):
    """Starts the image's command as its user and waits for an answer."""
    words = dockerfile.json_words(path, "ENTRYPOINT") + dockerfile.json_words(path, "CMD")
    words = ["setpriv", f"--reuid={stage.user}", "--clear-groups", *words,
             "--host", "127.0.0.1", "--port", "18432", "--no-grpc"]
    with subprocess.Popen(stage.command(words)) as process:
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
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it mounts and calls chroot")
    options.work.mkdir(parents=True, exist_ok=True)
    last = replay(options.dockerfile.resolve(), options.base.resolve(), options.work.resolve())
    serve(options.dockerfile.resolve(), last)


if __name__ == "__main__":
    main()
