"""Checkpoints of a training over any number of processes, by Orbax."""

from pathlib import Path
from typing import Any


class Checkpoints:
    """The newest two checkpoints of a folder. All processes make the same calls together.

    Each process writes its own part of the arrays, so the folder must lie on a disk that all hosts
    see. A restart may have another number of processes or devices.

    Args:
        directory: the folder; `None` to save nothing.
    """

    def __init__(self, directory: str | None) -> None:
        self._manager: Any = None
        if directory is not None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(max_to_keep=2)
            self._manager = ocp.CheckpointManager(Path(directory).resolve(), options=options)

    def restore(self, name: str, like: Any) -> Any:
        """A part of the newest checkpoint; `like` itself if there is no checkpoint.

        Args:
            name: name of the part.
            like: a pytree with the shapes, and the layout over devices, to be restored.
        """
        if self._manager is None or self._manager.latest_step() is None:
            return like
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(like)})
        return self._manager.restore(self._manager.latest_step(), args=args)[name]

    def save(self, step: int, **parts: Any) -> None:
        """Start to write a checkpoint. It counts once all of it is on the disk, or not at all.

        Args:
            step: what it is of; the highest is the newest.
            **parts: name to pytree.
        """
        if self._manager is not None:
            import orbax.checkpoint as ocp

            saves = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
            self._manager.save(step, args=ocp.args.Composite(**saves))

    def close(self) -> None:
        """Wait for what is being written."""
        if self._manager is not None:
            self._manager.close()
