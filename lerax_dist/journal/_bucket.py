"""Folders at URLs (`gs://`, `s3://`, other object stores of fsspec), and copies of them here.

Objects cannot be appended to. So a file that grows is there as segments: the object
`journal.jsonl.0000000000004096` holds the bytes of `journal.jsonl` from 4,096 on. A segment ends
with a whole record, so each one of an event file is an event file. Other files are one object.
"""

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, final
from urllib.parse import quote, unquote

from lerax_dist.journal._reader import JOURNAL

# Who writes a run, and when it said so last.
LEASE = "lease.json"
_SEGMENT = re.compile(r"(.+)\.(\d{16})")
# Seconds for an answer, and bytes a second that even a slow line takes.
_TIMEOUT = 30.0
_SLOWEST = 1 << 17
# Objects that are read at once.
_MAX_READS = 64
# Bytes at either end of a journal that are enough for `read_ends`.
_END_BYTES = 1 << 20
# They are removed when this process ends.
_copies: "list[tempfile.TemporaryDirectory[str]]" = []


def url_of(path: str | os.PathLike[str]) -> str | None:
    """The URL that is meant, without a slash at its end; `None` if it is a local path."""
    # A `Path` of "gs://bucket" has one slash.
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", os.fspath(path), re.DOTALL)
    return None if match is None else f"{match[1]}://{match[2]}".rstrip("/")


def folder_of(path: str | os.PathLike[str]) -> Path:
    """A local path, with `~` expanded; for a URL the folder in the cache that is mirrored to it."""
    url = url_of(path)
    return Path(os.path.expanduser(path)) if url is None else _cache() / quote(url, safe="")


def mirrored_url(folder: Path) -> str | None:
    """The URL to which a local folder is mirrored; `None` for any other folder."""
    folder = folder.resolve()
    if not folder.is_relative_to(_cache()) or folder == _cache():
        return None
    first, *rest = folder.relative_to(_cache()).parts
    return "/".join([unquote(first), *rest])


def has_journal(folder: Path) -> bool:
    """Whether the folder of a run has a journal; if it is mirrored, in the bucket (`OSError`)."""
    if url := mirrored_url(folder):
        return any(name.startswith(JOURNAL) for name in Bucket(url).sizes())
    return (folder / JOURNAL).exists()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)).resolve() / "lerax_dist"


@final
class Bucket:
    """A folder at a URL, which need not exist; `ValueError` if it cannot be opened by fsspec.

    Every call ends in time where the file system of fsspec is asynchronous, as those of `gs://` and
    `s3://` are. It raises `OSError` only, whatever the errors of a cloud's package.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            from fsspec.core import url_to_fs

            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ValueError(
                f"{url} cannot be opened by fsspec ({error}). Run `pip install 'lerax-dist[gcs]'` "
                "for gs://, 'lerax-dist[s3]' for s3://, or use a local folder."
            ) from error
        self._root = str(root).rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Size of each object, by its name relative to the URL."""
        found = self._call("find", self._root, detail=True)
        start = len(self._root) + 1
        return {name[start:]: about["size"] for name, about in found.items() if name[start:]}

    def read(self, names: Sequence[str], size: int = 0) -> list[bytes]:
        """The contents of objects, of `size` bytes together."""
        paths = [f"{self._root}/{name}" for name in names]
        return self._call("cat_ranges", paths, None, None, size=size)

    def write(self, name: str, data: bytes) -> None:
        """Write an object, in place of the one of that name."""
        self._call("pipe_file", f"{self._root}/{name}", data, size=len(data))

    def probe(self) -> None:
        """Write an object and remove it."""
        self.write(".lerax-dist-doctor", b"")
        self._call("rm_file", f"{self._root}/.lerax-dist-doctor")

    def _call(self, method: str, *args: Any, size: int = 0, **options: Any) -> Any:
        timeout = _TIMEOUT + size / _SLOWEST
        if self._fs.async_impl:
            options["timeout"] = timeout
        try:
            found = getattr(self._fs, method)(*args, **options)
            for error in found if isinstance(found, list) else ():
                if isinstance(error, Exception):
                    raise error
            return found
        except Exception as error:
            text = str(error) or type(error).__name__
            text = f"no answer in {timeout:.0f} s" if isinstance(error, TimeoutError) else text
            # `OSError` makes itself a `FileNotFoundError` of the first number.
            number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
            raise OSError(number, text, self._url) from error

    def download(self, folder: Path, wants: Callable[[str], bool], ends: bool = False) -> list[str]:
        """Bring the files that `wants` names; what is there stays. Returns all names."""
        sizes = self.sizes()
        pieces = [(name, *place_of(name), size) for name, size in sorted(sizes.items())]
        whole = {file: start + size for _, file, start, size in pieces}
        missing = [
            (name, file, start, size)
            for name, file, start, size in pieces
            if wants(file)
            and start + size > size_of(folder / file)
            and not (ends and start > _END_BYTES and start + size < whole[file] - _END_BYTES)
        ]
        for place in range(0, len(missing), _MAX_READS):
            batch = missing[place : place + _MAX_READS]
            data = self.read([each[0] for each in batch], sum(each[3] for each in batch))
            for (_, file, start, _), piece in zip(batch, data, strict=True):
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("r+b" if path.exists() else "xb") as opened:
                    opened.seek(start)
                    opened.write(piece)
        return [*sizes]


def place_of(name: str) -> tuple[str, int]:
    """The file that an object has bytes of, and where they begin there."""
    match = _SEGMENT.fullmatch(name)
    return (name, 0) if match is None else (match[1], int(match[2]))


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def local_copy(
    path: str | os.PathLike[str], *, clips: bool = False, ends: bool = False
) -> tuple[Path, Callable[[], None]]:
    """A path for readers, and what brings there what is new; that may raise `OSError`.

    A local one is itself. Of a URL the journals (with `clips` also the videos, with `ends` only
    what `read_ends` needs) are copied to a temporary folder, which has the name of the run; the
    time of a journal is that at which its writer was heard last.
    """
    url = url_of(path)
    if url is None:
        return Path(path), lambda: None
    bucket = Bucket(url := url.removesuffix(f"/{JOURNAL}"))
    _copies.append(tempfile.TemporaryDirectory(prefix="lerax_dist-"))
    folder = Path(_copies[-1].name, PurePosixPath(url).name)
    folder.mkdir(exist_ok=True)

    def wants(file: str) -> bool:
        return PurePosixPath(file).name == JOURNAL or (clips and file.startswith("videos/"))

    def update() -> None:
        leases = [name for name in bucket.download(folder, wants, ends) if LEASE in name]
        for name, data in zip(leases, bucket.read(leases), strict=True):
            if (journal := (folder / name).with_name(JOURNAL)).exists():
                os.utime(journal, (json.loads(data)["time"],) * 2)

    return folder, update
