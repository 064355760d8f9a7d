"""Runs the blocks of a page, one after the other in one program, as a reader would paste them.

Argument: a JSON file, a list of [place, code, whether what came before is forgotten].
"""

import json
import sys
import traceback
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import lerax_dist as ld
from tests.docs import given

# A page shows its own imports once; a docstring shows none.
START = {name: value for name, value in vars(given).items() if not name.startswith("_")}
START |= {"Path": Path, "eqx": eqx, "jax": jax, "jnp": jnp, "np": np, "ld": ld}


def main() -> int:
    names: dict[str, object] = {}
    failed = 0
    for place, code, afresh in json.loads(Path(sys.argv[1]).read_text()):
        if afresh or not names:
            names = {**START, "__name__": "__main__"}
            if afresh:
                names |= {name: getattr(ld, name) for name in dir(ld) if name[0] != "_"}
        try:
            exec(compile(code, place, "exec"), names)
        except Exception:
            failed += 1
            print(f"{place} does not run:\n{code}\n{traceback.format_exc()}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
