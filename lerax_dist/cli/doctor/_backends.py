"""Check: whether process 0 can use each backend of the package."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, final

from lerax_dist.cli.doctor._check import AbstractCheck, Context, Finding, Shown

# Name of a backend's class to its `SetupProblem`s, as JSON.
Problems = dict[str, list[dict[str, Any]]]

# Seconds, e.g. for the answer of W&B's server.
_TIMEOUT = 5.0


@final
class BackendsCheck(AbstractCheck[Problems]):
    """What each backend's `check_setup` finds on process 0, which writes."""

    key = "backends"
    fact = dict

    def collect(self, context: Context) -> Problems | None:
        if not context.group.is_writer:
            return None
        from lerax_dist.backends import ALL_BACKENDS

        return {
            backend.__name__: [asdict(problem) for problem in backend.check_setup(_TIMEOUT)]
            for backend in ALL_BACKENDS
        }

    def judge(self, facts: Sequence[Problems], hosts: Sequence[str]) -> Iterator[Finding]:
        for problems in facts[0].values():
            for problem in problems:
                yield Finding(**problem)

    def show(self, facts: Sequence[Problems]) -> Iterator[Shown]:
        ready = [name for name, problems in facts[0].items() if not problems]
        others = [name for name, problems in facts[0].items() if problems]
        below = f"; see below for {', '.join(others)}" if others else ""
        yield "backends", f"{', '.join(ready) or 'none'} ready{below}"
