"""The manual page and the completion of bash, which the program prints for packages."""

import re
import subprocess

import pytest

from server_process import BINARY


def printed(flag):
    return subprocess.run([BINARY, flag], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def flags():
    found = set(re.findall(r"^\s+(?:-\w,)?(--[\w-]+)", printed("--help"), re.MULTILINE))
    assert len(found) > 30
    return found


def test_the_man_page_renders_without_a_warning_and_names_every_flag(flags, tmp_path):
    page = tmp_path / "pbserve.1"
    page.write_text(printed("--print-man-page"))
    groff = subprocess.run(["groff", "-man", "-ww", "-Tascii", "-P-cbou", page],
                           capture_output=True, text=True, check=True)
    assert groff.stderr == ""
    for flag in flags:
        assert re.search(rf"^ +(-\w, )?{flag}( |$)", groff.stdout, re.MULTILINE), flag
    for section in ("NAME", "SYNOPSIS", "OPTIONS", "EXAMPLES"):
        assert re.search(rf"^{section}$", groff.stdout, re.MULTILINE), section
    assert "print-man-page" not in groff.stdout


def completions(tmp_path, *words):
    script = tmp_path / "pbserve.bash"
    script.write_text(printed("--print-bash-completion"))
    shell = f'''source {script}
        COMP_WORDS=(pbserve "$@"); COMP_CWORD=$#; _pbserve; printf "%s\\n" "${{COMPREPLY[@]}}"'''
    done = subprocess.run(["bash", "-euc", shell, "bash", *words], capture_output=True, text=True,
                          cwd=tmp_path, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_flags_values_and_files(flags, tmp_path):
    assert sorted(completions(tmp_path, "")) == sorted(flags)
    assert completions(tmp_path, "--dev") == ["--device"]
    assert completions(tmp_path, "--device", "c") == ["cpu", "cuda"]
    assert completions(tmp_path, "--device", "cpu", "--enf") == ["--enforce-eager"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert completions(tmp_path, "--model", "f") == ["folder"]
    assert sorted(completions(tmp_path, "--config", "f")) == ["file", "folder"]
    assert completions(tmp_path, "--port", "") == []
