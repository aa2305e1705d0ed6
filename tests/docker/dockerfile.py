"""Reads Dockerfiles and .dockerignore as far as ours go."""

import fnmatch
import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def instructions(path):
    """[(name, text)], continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(path):
    """The instructions of each stage; what stands before the first FROM is left out."""
    found = []
    for name, text in instructions(path):
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, text))
    return found


def json_words(path, name):
    """The words of the last ENTRYPOINT or CMD."""
    return json.loads([text for found, text in instructions(path) if found == name][-1])


def copied_sources(path):
    """The sources of every COPY out of the build context."""
    found = []
    for name, text in instructions(path):
        if name == "COPY" and "--from" not in text:
            found += text.split()[:-1]
    return found


def is_ignored(name, rules):
    """Whether the build context lacks a file: the last rule that fits it or a folder above it."""
    folders = [str(folder) for folder in pathlib.PurePosixPath(name).parents][:-1]
    ignored = False
    for rule in rules:
        pattern = rule.lstrip("!").rstrip("/")
        # "*" does not cross a slash; "**/" stands for any folders or none.
        if any(_fits(candidate, pattern) for candidate in [name, *folders]):
            ignored = not rule.startswith("!")
    return ignored


def _fits(name, pattern):
    if pattern.startswith("**/"):
        return _fits(name.rsplit("/", 1)[-1], pattern[3:])
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def ignore_rules():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def tracked_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                            check=False)
    if listed.returncode == 0:
        return listed.stdout.splitlines()
    # An archive: what is there.
    return [str(file.relative_to(ROOT)) for file in ROOT.rglob("*")
            if file.is_file() and "build" not in file.relative_to(ROOT).parts]
