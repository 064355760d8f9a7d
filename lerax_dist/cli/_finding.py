"""One thing that the doctor has to say."""

from dataclasses import dataclass
from typing import Literal, final

Level = Literal["problem", "warning", "hint"]


@final
@dataclass(frozen=True)
class Finding:
    """Something to say about a launch.

    Attributes:
        level: "problem" if a run would not log correctly; "warning" if it would, but something is
            not as most would want it; "hint" for what could be better.
        what: what it is.
        mend: what to do.
    """

    level: Level
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}" if self.mend else self.what
