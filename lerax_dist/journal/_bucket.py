"""Folders at URLs (`gs://`, `s3://`, what fsspec opens), and copies of them on this machine.

Objects cannot be appended to. So a file that grows is there as segments: the object
`journal.jsonl.0000000000004096` holds the bytes of `journal.jsonl` from 4,096 on. A segment ends
with a whole record, so each one of an event file is an event file. Other files are one object.
"""

import errno
import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, final
from urllib.parse import quote, unquote

from lerax_dist.journal._reader import JOURNAL
from lerax_dist.journal._run_file import RUN_FILE

# Who writes a run, since when, and whether it still does.
LEASE = "lease.json"
_SEGMENT = re.compile(r"(.+)\.(\d{16})")
# Scheme of a URL -> the extra of this package with what fsspec needs for it.
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
# Seconds for an answer, and bytes a second that even a slow line takes.
_TIMEOUT = 30.0
_SLOWEST = 1 << 17
# Objects that are read at once.
_MAX_READS = 64
# Bytes at either end of a journal that are enough for `read_ends`.
_END_BYTES = 1 << 20


def url_of(path: str | os.PathLike[str]) -> str | None:
    """The URL that is meant, without a slash at its end; `None` if it is a local path."""
    # A `Path` of "gs://bucket" has one slash.
    slashes = "//" if isinstance(path, str) else "/"
    match = re.fullmatch(rf"([A-Za-z][A-Za-z0-9+.-]+):{slashes}(.*)", os.fspath(path), re.DOTALL)
    if match is None:
        return None
    root = "/" if match[1] == "file" and slashes == "/" else ""
    return f"{match[1]}://{root}{match[2]}".rstrip("/")


def mirror_folder(url: str) -> Path:
    """The local folder that is mirrored to a URL, in the user's cache."""
    return _cache() / quote(url, safe="")


def mirrored_url(folder: Path) -> str | None:
    """The URL to which a local folder is mirrored; `None` for any other folder."""
    if not folder.is_relative_to(_cache()) or folder == _cache():
        return None
    first, *rest = folder.relative_to(_cache()).parts
    return "/".join([unquote(first), *rest])


def has_journal(folder: Path) -> bool:
    """Whether the folder of a run has a journal; in the bucket, if it is mirrored to one.

    Raises:
        OSError: the bucket cannot be read.
    """
    url = mirrored_url(folder)
    if url is None:
        return (folder / JOURNAL).exists()
    return any(name.startswith(f"{JOURNAL}.") for name in Bucket(url).sizes())


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)).resolve() / "lerax_dist"


@final
class Bucket:
    """A folder at a URL. Every call ends in time where the file system of fsspec is asynchronous,
    as those of `gs://` and `s3://` are.

    Args:
        url: the folder; it need not exist.

    Raises:
        ModuleNotFoundError: a package is missing.
        ValueError: fsspec does not know the protocol.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            from fsspec.core import url_to_fs

            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            extra = _EXTRAS.get(url.partition(":")[0])
            package = "the package that it names" if extra is None else f"'lerax-dist[{extra}]'"
            raise ModuleNotFoundError(
                f"{url} needs a package that is not installed ({error}). Run `pip install "
                f"{package}`."
            ) from error
        except ValueError as error:
            raise ValueError(
                f"{url} cannot be opened by fsspec ({error}). Use e.g. gs://bucket/logs, "
                "s3://bucket/logs, or a local folder."
            ) from error
        self._root = str(root).rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Size of each object, by its name relative to the URL."""
        try:
            found = self._call("find", self._root, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._root) + 1
        return {name[start:]: about["size"] for name, about in found.items() if name[start:]}

    def read(self, names: Sequence[str], size: int = 0) -> list[bytes]:
        """The contents of objects, of `size` bytes together."""
        paths = [f"{self._root}/{name}" for name in names]
        return self._call("cat_ranges", paths, None, None, size=size)

    def write(self, name: str, data: bytes) -> None:
        """Write an object, in place of the one of that name."""
        path = f"{self._root}/{name}"
        if not self._fs.async_impl:
            # Those have folders.
            self._call("makedirs", path.rpartition("/")[0], exist_ok=True)
        self._call("pipe_file", path, data, size=len(data))

    def remove(self, name: str) -> None:
        """Remove an object."""
        self._call("rm_file", f"{self._root}/{name}")

    def _call(self, method: str, *args: Any, size: int = 0, **options: Any) -> Any:
        """Ask the file system. Raises `OSError` only, whatever the errors of a cloud's package."""
        timeout = _TIMEOUT + size / _SLOWEST
        if self._fs.async_impl:
            options["timeout"] = timeout
        try:
            found = getattr(self._fs, method)(*args, **options)
            if isinstance(found, list) and (
                errors := [e for e in found if isinstance(e, Exception)]
            ):
                raise errors[0]
            return found
        except Exception as error:
            text = str(error) or type(error).__name__
            text = f"no answer in {timeout:.0f} s" if isinstance(error, TimeoutError) else text
            is_missing = isinstance(error, FileNotFoundError)
            number = errno.ENOENT if is_missing else errno.EIO
            # `OSError` makes itself a `FileNotFoundError` of this number.
            raise OSError(number, text, self.url) from error


def download(
    bucket: Bucket,
    sizes: Mapping[str, int],
    folder: Path,
    wants: Callable[[str], bool],
    ends: bool = False,
) -> dict[str, int]:
    """Bring the files of a bucket into a local folder; what is there already stays as it is.

    Args:
        bucket: the bucket.
        sizes: its objects.
        folder: where to.
        wants: whether to bring the file of that name.
        ends: whether of large files the two ends are enough; the rest is zeros then.

    Returns:
        How much of each file that grows the bucket has, in bytes.
    """
    objects: list[tuple[str, str, int, int]] = []
    grown: dict[str, int] = {}
    for name, size in sorted(sizes.items()):
        match = _SEGMENT.fullmatch(name)
        file, start = (name, 0) if match is None else (match[1], int(match[2]))
        objects.append((name, file, start, start + size))
        if match is not None:
            grown[file] = start + size
    local = {
        file: path.stat().st_size for _, file, _, _ in objects if (path := folder / file).is_file()
    }
    missing = [
        (name, file, start, stop)
        for name, file, start, stop in objects
        if wants(file)
        and (stop > local.get(file, 0) if file in grown else file not in local)
        and not (ends and start > _END_BYTES and stop < grown[file] - _END_BYTES)
    ]
    for place in range(0, len(missing), _MAX_READS):
        batch = missing[place : place + _MAX_READS]
        size = sum(stop - start for _, _, start, stop in batch)
        pieces = bucket.read([name for name, _, _, _ in batch], size)
        for (_, file, start, _), piece in zip(batch, pieces, strict=True):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("r+b" if path.exists() else "xb") as opened:
                opened.seek(start)
                opened.write(piece)
    return grown


@functools.cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    """A folder that is removed when this process ends."""
    return tempfile.TemporaryDirectory(prefix="lerax_dist-")


@final
class BucketCopy:
    """The journals below a URL, in a temporary folder, for readers of this process.

    The times of its files are those at which the writer was heard last, see `Liveness`.

    Attributes:
        folder: the local folder; its name is that of the run, or of the folder of the runs.

    Args:
        url: folder of a run, or of runs.
        clips: whether to bring the videos as well.
        ends: whether the two ends of a journal are enough.
    """

    def __init__(self, url: str, *, clips: bool = False, ends: bool = False) -> None:
        self._bucket = Bucket(url.removesuffix(f"/{JOURNAL}"))
        self._clips = clips
        self._ends = ends
        own = Path(tempfile.mkdtemp(dir=_temporary().name))
        self.folder = own / (PurePosixPath(self._bucket.url).name or "bucket")
        self.folder.mkdir()

    def update(self) -> None:
        """Bring what is new. Raises `OSError` if the bucket cannot be read."""
        sizes = self._bucket.sizes()
        download(self._bucket, sizes, self.folder, self._wants, self._ends)
        leases = [name for name in sizes if PurePosixPath(name).name == LEASE]
        for name, data in zip(leases, self._bucket.read(leases), strict=True):
            lease = json.loads(data)
            heard = lease["time"] if lease["open"] else 0.0
            for file in (RUN_FILE, JOURNAL):
                path = self.folder / PurePosixPath(name).with_name(file)
                if path.parent.is_dir() and (file == RUN_FILE or path.exists()):
                    path.touch()
                    os.utime(path, (heard, heard))

    def _wants(self, file: str) -> bool:
        path = PurePosixPath(file)
        return path.name == JOURNAL or (self._clips and path.parts[0] == "videos")
