"""The way of a number is one-way: which file may import which, read off the import lines."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lerax_dist"
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]

# Each part of the package, and the parts that it may import besides itself.
ARROWS = {
    "_version": set(),
    "_failures": set(),
    "_schema": set(),
    "_metric_names": set(),
    "_run_name": {"journal"},
    "_timed_call": set(),
    "_secrets": set(),
    "_hparams": {"_secrets"},
    "_protocol": set(),
    "journal": {"_failures"},
    "backends": {"_hparams", "_run_name", "_secrets", "journal"},
    "cluster": {"_timed_call"},
    "process_logs": {"cluster"},
    "host": {"_failures", "_schema", "backends", "cluster", "journal", "process_logs"},
    "device": {"_metric_names", "_protocol", "_schema", "_timed_call"},
    "video": {"_failures", "device", "host", "journal"},
    "_facts": {"_secrets", "_version", "cluster"},
    "_state": {"journal"},
    "_config": {"_hparams", "_run_name", "_state", "backends", "cluster", "host"},
    "_open": {
        *("_config", "_facts", "_failures", "_run_name"),
        *("backends", "cluster", "host", "journal", "process_logs"),
    },
    "_handle": {
        *("_config", "_failures", "_metric_names", "_state", "backends", "device", "host"),
    },
    "_logger": {
        *("_config", "_handle", "_hparams", "_open", "_run_name", "_state"),
        *("backends", "cluster", "device", "host", "journal"),
    },
    "_callback": {
        *("_config", "_handle", "_hparams", "_metric_names", "_open", "_protocol", "_state"),
        *("cluster", "device", "host", "journal", "video"),
    },
    "cli": {"_failures", "_run_name", "_version", "backends", "cluster", "host", "journal"},
    "__init__": {
        *(
            "_callback",
            "_config",
            "_failures",
            "_logger",
            "_open",
            "_protocol",
            "_schema",
            "_state",
        ),
        *("_version", "backends", "cluster", "device", "host", "journal", "process_logs"),
    },
}
# Everything but the device half, and what joins JAX's processes.
WITHOUT_JAX = set(ARROWS) - {
    *("device", "video", "cluster", "cli"),
    *("_protocol", "_state", "_callback", "_logger", "__init__"),
}
# Imported where they are used only: they start things, or cost the processes that do not write.
LAZY = {
    *("mpi4py", "wandb", "tensorboardX", "crc32c", "rich", "PIL", "av"),
    *("pandas", "pyarrow", "fsspec"),
}
PRIVATE_JAX = {"cluster/_store.py", "device/_callback.py"}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path, *, top_level_only=False):
    """Full names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{path.name} imports {base} relatively"
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_one_way(path):
    part = part_of(path)
    for name in imports_of(path):
        if name.startswith("lerax_dist."):
            target = name.split(".")[1]
            assert target == part or target in ARROWS[part], f"{part} imports {name}"


def test_every_part_has_its_arrows_named():
    assert {part_of(path) for path in FILES} == set(ARROWS)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_jax_stays_out_of_the_host_half(path):
    roots = {name.split(".")[0] for name in imports_of(path)}
    if part_of(path) in WITHOUT_JAX:
        assert not roots & {"jax", "jaxlib", "equinox", "jaxtyping"}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_private_parts_of_jax_are_named_in_two_files_only(path):
    if str(path.relative_to(PACKAGE)) not in PRIVATE_JAX:
        assert not any(name.startswith(("jax._src", "jaxlib")) for name in imports_of(path))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_host_callbacks_leave_from_one_file_only(path):
    if path.relative_to(PACKAGE) != Path("device/_callback.py"):
        for word in ("debug.callback", "io_callback", "pure_callback"):
            assert word not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_class_is_abstract_or_final(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
        decorators = {ast.unparse(line).split("(")[0] for line in node.decorator_list}
        open_bases = {"Protocol", "ABC", "NamedTuple", "Exception", "RuntimeError", "UserWarning"}
        if not (bases & open_bases or node.name.lstrip("_").startswith("Abstract")):
            assert "final" in decorators, f"{node.name} is neither abstract nor @final"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_frozen_things_stay_frozen_and_annotations_are_objects(path):
    text = path.read_text()
    assert "object.__setattr__" not in text
    assert "from __future__ import annotations" not in text


def test_importing_the_package_loads_nothing_costly_and_starts_nothing():
    program = (
        "import sys, threading, lerax_dist\n"
        f"print(sorted(set(sys.modules) & {LAZY!r}), threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[] 1\n"


def test_importing_the_package_loads_no_package_that_jax_and_equinox_do_not():
    program = (
        "import sys, jax, equinox\n"
        "before = set(sys.modules)\n"
        "import lerax_dist\n"
        "roots = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(roots - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "['lerax_dist']\n"
