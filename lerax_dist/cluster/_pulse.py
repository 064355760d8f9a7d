"""Signs of life: who is silent, and what process 0 tells the others. Pure."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

# Errors that a process gets because another one is gone.
_OF_ANOTHER = re.compile(
    r"\b(gloo|nccl|rccl|unavailable|deadline_exceeded|aborted|connection (closed|reset)|socket)\b",
    re.IGNORECASE,
)
# Looks at the store per second, all processes together.
_LOOKS = 500.0


@final
class Tempo(NamedTuple):
    """How often to look and how long to believe.

    Attributes:
        period: seconds between two looks.
        patience: seconds without a sign after which a process is called silent.
        given_up: seconds after which those who are done do not wait for it any more.
    """

    period: float
    patience: float
    given_up: float


def choose_tempo(heartbeat: float, count: int) -> Tempo:
    """The tempo for JAX's heartbeat limit in seconds and a number of processes.

    JAX ends everybody after half to the whole of its limit, so who is silent is named before.
    """
    period = max(1.0, count / _LOOKS)
    patience = max(0.3 * heartbeat, 3 * period)
    return Tempo(period, patience, 1.5 * patience)


@final
class Beat(NamedTuple):
    """The last sign of a process, and when it came."""

    sign: str
    since: float


def hear(beats: Mapping[int, Beat], signs: Mapping[int, str], now: float) -> dict[int, Beat]:
    """What is known once these signs were read at time `now`; one seen before is none."""
    fresh = {
        index: Beat(sign, now)
        for index, sign in signs.items()
        if index not in beats or beats[index].sign != sign
    }
    return {**beats, **fresh}


def silent(
    beats: Mapping[int, Beat], left: Collection[int], now: float, patience: float
) -> dict[int, float]:
    """Seconds of silence of those who have not left and were not heard for `patience` seconds."""
    return {
        index: now - beat.since
        for index, beat in beats.items()
        if index not in left and now - beat.since >= patience
    }


@final
@dataclass(frozen=True)
class News:
    """What process 0 knows.

    Attributes:
        beat: number of the news; they are process 0's sign of life, too.
        hosts: host name of each process named below and of process 0.
        silent: seconds of silence by process.
        failed: why a process has ended badly, by process.
    """

    beat: int
    hosts: dict[int, str]
    silent: dict[int, float]
    failed: dict[int, str]


def encode_news(news: News) -> str:
    """News as text."""
    return json.dumps([news.beat, news.hosts, news.silent, news.failed])


def decode_news(text: str) -> News:
    """The news that `encode_news` made."""
    beat, *tables = json.loads(text)
    hosts, quiet, failed = ({int(key): value for key, value in t.items()} for t in tables)
    return News(beat, hosts, quiet, failed)


def is_of_another(why: str) -> bool:
    """Whether an error reads as if another process were the reason."""
    return _OF_ANOTHER.search(why) is not None
