"""A virtual environment of Python 3.13 with the newest jax, and lerax, from the registry."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = ROOT / ".venv-3.13"
_PACKAGES = ("lerax", "pytest>=8", "pytest-timeout", "hypothesis>=6.100", "tensorboard", "flax")


def python313() -> str:
    """Its interpreter, made on first use; skips the test where there is no Python 3.13."""
    python = _FOLDER / "bin" / "python"
    stamp = _FOLDER / "installed"
    wanted = "\n".join([(ROOT / "pyproject.toml").read_text(), *_PACKAGES])
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    base = _find()
    if base is None:
        pytest.skip("no Python 3.13 on PATH or under pyenv, and lerax needs it")
    _run(base, "-m", "venv", "--clear", str(_FOLDER))
    _run(str(python), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[mpi]", *_PACKAGES)
    stamp.write_text(wanted)
    return str(python)


def _find() -> str | None:
    found = shutil.which("python3.13")
    candidates = [found] if found else []
    for root in (os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"):
        if root:
            candidates += sorted(map(str, Path(root).glob("versions/3.13*/bin/python")))
    for candidate in candidates:
        # A shim of pyenv is there for versions that are not active, too.
        probe = [candidate, "-c", "import sys, venv; print(sys.version_info[:2] == (3, 13))"]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
        if done.stdout.strip() == "True":
            return candidate
    return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
