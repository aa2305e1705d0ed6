"""The CPU half is meant to build for arm64 too (GH200): its sources are compiled for it, as far as
a compiler goes without that machine's libraries."""

import subprocess

import pytest

from dockerfile import ROOT

SOURCES = sorted([*(ROOT / "kernels" / "cpu").glob("*.cc"),
                  *(ROOT / "kernels" / "core").glob("*.cc")])


@pytest.fixture(scope="module")
def includes(tmp_path_factory):
    """Abseil's headers alone: the folder above holds those of this machine's processor."""
    folder = tmp_path_factory.mktemp("include")
    (folder / "absl").symlink_to("/usr/include/absl")
    return folder


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_compiles_for_arm64(source, includes):
    # The cross compiler of docker/install-deps.sh test.
    done = subprocess.run(["aarch64-linux-gnu-g++", "-march=armv8.2-a", "-std=c++20", "-Wall",
                           "-Wextra", "-Wshadow", "-Wno-psabi", "-Werror", "-fsyntax-only",
                           f"-I{ROOT}", "-isystem", includes, source],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
