"""Checkpoints of a training on any number of processes, with Orbax."""

from pathlib import Path
from typing import Any


class Checkpoints:
    """Keeps the newest two checkpoints in a folder. Every process must make the same calls.

    Each process writes its own shards of the arrays, so all hosts must share the folder. A restart
    may have another number of processes or devices.

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
        """Restore a part of the newest checkpoint; returns `like` if there is no checkpoint.

        Args:
            name: name of the part.
            like: a pytree with the shapes, dtypes and shardings to restore.
        """
        if self._manager is None or self._manager.latest_step() is None:
            return like
        import orbax.checkpoint as ocp

        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(like)})
        return self._manager.restore(self._manager.latest_step(), args=args)[name]

    def save(self, step: int, **parts: Any) -> None:
        """Start writing a checkpoint, in the background. An incomplete one is never restored.

        Args:
            step: number of the checkpoint; the highest is the newest.
            **parts: pytrees by name.
        """
        if self._manager is not None:
            import orbax.checkpoint as ocp

            saves = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
            self._manager.save(step, args=ocp.args.Composite(**saves))

    def close(self) -> None:
        """Wait until all checkpoints are written."""
        if self._manager is not None:
            self._manager.close()
