"""Runs the Python blocks of pages as a reader would paste them: those of a page in one program.

Argument: a JSON file, a list of [folder, whether blocks stand alone, blocks], each of them a
[place, code]. All pages share this interpreter, which spares each the start of JAX; every page has
names and a folder of its own. Prints what failed, as JSON, by folder.
"""

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import lerax_dist as ld
from tests.docs import given

# What a page takes as given. A docstring shows no imports at all.
GIVEN = {name: value for name, value in vars(given).items() if not name.startswith("_")}
MODULES = {"Path": Path, "eqx": eqx, "jax": jax, "jnp": jnp, "np": np, "ld": ld}
DOOR = {name: getattr(ld, name) for name in dir(ld) if not name.startswith("_")}


def run_page(alone: bool, blocks: list[list[str]]) -> list[str]:
    failed: list[str] = []
    names: dict[str, object] = {}
    for place, code in blocks:
        if alone or not names:
            names = {**GIVEN, "__name__": "__main__"}
            names |= MODULES | DOOR if alone else {}
        try:
            exec(compile(code, place, "exec"), names)
        except Exception:
            failed.append(f"{place} does not run:\n{code}\n{traceback.format_exc()}")
    return failed


def main() -> None:
    failed = {}
    for folder, alone, blocks in json.loads(Path(sys.argv[1]).read_text()):
        os.chdir(folder)
        with contextlib.redirect_stdout(sys.stderr):
            failed[folder] = run_page(alone, blocks)
    print(json.dumps(failed))


if __name__ == "__main__":
    main()
