"""The rules of the house that no other tool checks."""

import re
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import kernels
from pipelines.settings import ROOT

LONGEST_FILE = 400


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("this is not a git checkout")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).exists()]


def test_kernels_is_our_package_alone():
    # Another distribution on the package index has this name, and transformers looks for it.
    assert Path(kernels.__file__).parent == ROOT / "kernels"
    assert set(packages_distributions().get("kernels", ["exnihilo"])) == {"exnihilo"}


def test_no_python_file_is_longer_than_a_reader_can_hold():
    lengths = {path: len(path.read_text().splitlines()) for path in tracked("*.py")}
    assert {str(path): n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_only_the_settings_read_the_environment():
    # torchrun and OpenMP speak through the environment too, but under names of their own.
    read = re.compile(r"""(environ(\.get\(|\[)|getenv\()\s*["']EXNIHILO_""")
    readers = {
        str(path.relative_to(ROOT))
        for path in tracked("*.py")
        if path.relative_to(ROOT).parts[0] != "tests" and read.search(path.read_text())
    }
    assert readers == {"pipelines/settings.py"}
