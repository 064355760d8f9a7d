"""Check: whether all processes run the same software."""

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from typing import final

from lerax_dist._version import __version__
from lerax_dist.cli.doctor._check import AbstractCheck, Context, Finding, Shown, format_differing

# Package to version; `None` if it is not installed.
Versions = dict[str, str | None]


@final
class VersionsCheck(AbstractCheck[Versions]):
    """Versions of Python and of the packages that compute or log."""

    key = "versions"
    fact = dict

    def collect(self, context: Context) -> Versions:
        found: Versions = {"python": platform.python_version()}
        for package in ("jax", "jaxlib", "equinox", "numpy"):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = None
        return found | {"lerax_dist": __version__}

    def judge(self, facts: Sequence[Versions], hosts: Sequence[str]) -> Iterator[Finding]:
        for package in _differing(facts):
            versions = [one.get(package) or "not installed" for one in facts]
            yield Finding(
                "warning" if package == "python" else "problem",
                f"{package} differs: {format_differing(versions, hosts)}",
                "install the same version on every host, e.g. one environment in a shared folder",
            )

    def show(self, facts: Sequence[Versions]) -> Iterator[Shown]:
        differing = _differing(facts)
        for package in differing:
            yield package, [one.get(package) or "none" for one in facts]
        same = [
            f"{package} {version or 'not installed'}"
            for package, version in facts[0].items()
            if package not in differing
        ]
        yield "versions", ", ".join(same) + (", the same everywhere" if facts[1:] else "")


def _differing(facts: Sequence[Versions]) -> list[str]:
    packages = dict.fromkeys(package for one in facts for package in one)
    return [package for package in packages if len({one.get(package) for one in facts}) > 1]
