"""The mesh axes that a reduction runs over, found in the trace."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType

Names = str | Sequence[str] | None
# The axis of the groups of environments, see `group_count`.
GROUPS = "lerax_dist groups"


class Axes(NamedTuple):
    """Axes in scope where a step is traced.

    Attributes:
        reduced: axes that reductions run over.
        manual: all manual axes of the mesh (`shard_map` and `pmap` make axes manual); the program
            runs once for each index along them. Empty under plain `jit`, where arrays are logical
            and a sum over one is global already.
        members: manual axes along which members of a training are, each with its own rows.
    """

    reduced: tuple[str, ...]
    manual: tuple[str, ...]
    members: tuple[str, ...] = ()

    def size(self, names: Sequence[str]) -> int:
        """How many devices lie along the axes `names`."""
        return math.prod(lax.axis_size(name) for name in names)

    def spanned_by(self, tree: Any) -> tuple[str, ...]:
        """Axes along which `tree` holds other values from device to device.

        A value that is replicated along an axis must be counted once, not once for each device
        there; types say so where `shard_map` checks them (`check_vma`, on by default). Otherwise,
        or if nothing in `tree` differs, every axis counts.
        """
        if not self.reduced:
            return ()
        leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
        varying = frozenset[str]().union(*(_varying(leaf) for leaf in leaves))
        checked = self._checked
        spanned = tuple(name for name in self.reduced if name in varying or name not in checked)
        return spanned or self.reduced

    def split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The axes that are reduced over: those of `vmap`, and the manual ones."""
        return (
            tuple(name for name in self.reduced if name not in self.manual),
            tuple(name for name in self.reduced if name in self.manual),
        )

    @property
    def crosses_devices(self) -> bool:
        """Whether a reduction needs a collective; one over what `vmap` maps needs none."""
        return bool(self.split()[1]) or self.reduced == (GROUPS,)

    def gather(self, array: jax.Array) -> jax.Array:
        """What the devices along the member axes have, one after the other along the first axis."""
        if not self.members:
            return array
        array = _marked(array, tuple(name for name in self.members if name in self._checked))
        return lax.all_gather(array, self.members, tiled=True)

    def pmean(self, array: jax.Array) -> jax.Array:
        """Mean over the axes that are reduced over."""
        return self._collective(lax.pmean, array)

    def pmax(self, array: jax.Array) -> jax.Array:
        """Maximum over the axes that are reduced over."""
        return self._collective(lax.pmax, array)

    def _collective(self, over: Callable[[Any, Any], Any], array: jax.Array) -> jax.Array:
        # Type checks refuse one collective over vmapped and manual axes together. The first is a
        # reduction of a batch, and no collective once it is compiled.
        vmapped, manual = self.split()
        if vmapped:
            try:
                array = over(array, vmapped)
            except AssertionError as error:
                # As of jax 0.12.0, so does `lax.psum` of a user's own.
                raise ValueError(
                    f"`axis_name` names the vmapped axis {vmapped[0]!r} inside a `shard_map` with "
                    "`check_vma=True`, where JAX has no collective over a vmapped axis. Pass "
                    "`check_vma=False` to the `shard_map`."
                ) from error
        return over(array, manual) if manual else array

    def vary(self, array: jax.Array) -> jax.Array:
        """`array`, marked as one that may differ along every axis that is reduced over.

        Under type checks (`check_vma`) a collective takes either what differs along all of its
        axes or what differs along none.
        """
        return _marked(array, tuple(n for n in self.reduced if n in self._checked))

    def vary_all(self, array: jax.Array) -> jax.Array:
        """`array`, marked as one that may differ along every manual axis."""
        return _marked(array, tuple(self._checked))

    def varies_over_all(self, array: jax.Array) -> bool:
        """Whether `array` is marked as one that may differ along every manual axis."""
        return self._checked <= _varying(array)

    @property
    def _checked(self) -> frozenset[str]:
        """Manual axes along which types are checked (`check_vma`)."""
        return _varying(lax.axis_index(self.manual)) if self.manual else frozenset()


def _marked(array: jax.Array, names: tuple[str, ...]) -> jax.Array:
    same = tuple(name for name in names if name not in _varying(array))
    return lax.pcast(array, same, to="varying") if same else array


def _varying(array: jax.Array) -> frozenset[str]:
    return jax.typeof(array).manual_axis_type.varying


def find_axes(axis_name: Names, member_axes: Names = None) -> Axes:
    """The axes of the trace that calls this. All that are named must be in scope; `None` reduces
    over every manual axis but the `member_axes`."""
    manual = tuple(jax.sharding.get_abstract_mesh().manual_axes)
    members = _in_scope("member_axes", member_axes, manual)
    if axis_name is None:
        reduced = tuple(name for name in manual if name not in members)
    else:
        reduced = _in_scope("axis_name", axis_name, manual)
    # A vmapped axis that holds no data holds members anyway.
    return Axes(reduced, manual, tuple(name for name in members if name in manual))


def _in_scope(argument: str, given: Names, manual: tuple[str, ...]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given or ())
    fix = {
        "axis_name": "Leave `axis_name=None` to reduce over all of them.",
        "member_axes": "Leave out what only `vmap` maps over: it holds members anyway.",
    }
    for name in names:
        try:
            lax.axis_size(name)
        except NameError:
            raise ValueError(
                f"`{argument}` names {name!r}, which is not in scope here; manual axes in scope: "
                f"{manual}. {fix[argument]}"
            ) from None
    return names


def check_scope(scope: str, process_count: int, method: str, members: str = "band") -> None:
    """Check that the step that is being traced spans all processes if `scope` is `"global"`, and
    only this one if it is `"process"`; then rows of members kept apart cannot be merged. `method`
    is what was called, for errors."""
    if process_count == 1:
        return
    if scope == "process" and members == "each":
        raise ValueError(
            f'`members` is "each", but the rows of {process_count} processes are merged '
            '(`scope="process"`), each with a member 0 of its own. Use `members="band"`, or one '
            "program over all processes."
        )
    if scope == "global":
        if not isinstance(jnp.zeros(()), Tracer):
            raise RuntimeError(
                f"`{method}` was called outside of `jit` in a run of {process_count} "
                "processes, where it cannot reduce over them. Call it in the compiled step, or log "
                "reduced values with `Logger`."
            )
        return
    axes = find_axes(None)
    devices = axes.size(axes.manual)
    if devices > jax.local_device_count():
        raise ValueError(
            f'`scope` is "process", but the step runs over {devices} devices of several processes; '
            f'this one has {jax.local_device_count()}. Pass `scope="global"`, or compile a program '
            "over `jax.local_devices()` in each process."
        )


def group_count(tree: Any) -> int:
    """Into how many groups to split the leading axis of arrays, under plain `jit`.

    There XLA splits arrays over the devices, and a maximum over all environments is a collective of
    its own. Of groups, one for each device, there are slots as in `shard_map`. It is 1 where arrays
    cannot be split, or the mesh is explicit: then users say how each array is split.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    meshes = [mesh for mesh in (*meshes, jax.sharding.get_abstract_mesh()) if not mesh.empty]
    count = max([mesh.size for mesh in meshes], default=jax.device_count())
    is_explicit = any(AxisType.Explicit in mesh.axis_types for mesh in meshes)
    lengths = {leaf.shape[0] if leaf.ndim else 1 for leaf in leaves}
    is_even = len(lengths) == 1 and all(length % count == 0 for length in lengths)
    return count if is_even and not is_explicit else 1


def platform_of(tree: Any, default: str | None = None) -> str:
    """The platform that a trace is for, e.g. `"tpu"`: that of the mesh in scope, or of the arrays
    of `tree`, which need not be that of the devices here. `default` is for where neither says it:
    `None` for JAX's default backend."""
    meshes = [jax.sharding.get_abstract_mesh()]
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    meshes += [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    devices = [mesh.abstract_device for mesh in meshes if not mesh.empty]
    known = [device.platform for device in devices if device is not None]
    return known[0] if known else default or jax.default_backend()
