"""How an environment is drawn: the user's function, its `render_frame`, or lerax's `render`."""

import importlib
import types
from collections.abc import Callable
from typing import Any, NamedTuple, final

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

from lerax_dist.video._paint import Picture, Shape, View, paint
from lerax_dist.video._rollout import GymnaxEnv, LeraxEnv

# (state with NumPy arrays as leaves, width, height) -> uint8 pixels (height, width, 3).
Render = Callable[[Any, int, int], Any]


class Renderer(NamedTuple):
    """How one environment is drawn.

    Attributes:
        observe: (traced) maps the stacked states to the arrays that `draw` needs.
        draw: (host) `(arrays of one state, width, height)` to pixels.
    """

    observe: Callable[[Any], Any]
    draw: Render


def choose_renderer(env: Any, env_on_host: Any, render: Render | None) -> Renderer:
    """The way to draw an environment; `ValueError` if there is none.

    The leaves of `env` may be tracers. `env_on_host` is the same environment without them; `None`
    if only the compiled step has it. The user's `render` takes precedence.
    """
    render = render or getattr(env_on_host, "render_frame", None)
    if callable(render):
        return Renderer(lambda states: states, _on_cpu(render))
    if callable(getattr(env, "render_frame", None)):
        raise ValueError(
            f"`render_frame` of {_name(env)} cannot be called on the host, because only the "
            "compiled step has this environment. Pass it to `LoggingCallback` as well: `env=env`."
        )
    if isinstance(env, LeraxEnv) and hasattr(env, "default_renderer"):
        return _lerax_renderer(env)
    example = (
        " examples/gymnax_render.py has one for gymnax's classic control tasks."
        if isinstance(env, GymnaxEnv)
        else ""
    )
    raise ValueError(
        f"{_name(env)} has no `render_frame(state, width, height)`. Pass `render=` to "
        "`LoggingCallback`: a function of the same arguments that returns uint8 pixels of shape "
        f"(height, width, 3).{example}"
    )


def _name(env: Any) -> str:
    return str(getattr(env, "name", "") or type(env).__name__)


def _on_cpu(render: Render) -> Render:
    """`render`, with JAX code inside it kept off the accelerator."""
    try:
        (cpu, *_) = jax.local_devices(backend="cpu")
    except RuntimeError:
        # `JAX_PLATFORMS` excludes the CPU. A function that only uses NumPy still works.
        return render

    def draw(state: Any, width: int, height: int) -> Any:
        with jax.default_device(cpu):
            return render(state, width, height)

    return draw


def draw_frames(observed: Any, draw: Render, num_steps: int, width: int, height: int) -> np.ndarray:
    """The frames of a clip, `uint8` `(num_steps, height, width, 3)`.

    `observed` is a pytree of NumPy arrays with a leading axis of `num_steps`. If `draw` returns
    pixels of another shape or type, that is a `ValueError`.
    """
    frames = np.empty((num_steps, height, width, 3), np.uint8)
    leaves, tree = jax.tree.flatten(observed)
    for i in range(num_steps):
        state = jax.tree.unflatten(tree, [leaf[i] for leaf in leaves])
        pixels = np.asarray(draw(state, width, height))
        if pixels.dtype != np.uint8 or pixels.shape != (height, width, 3):
            raise ValueError(
                f"`render` must return uint8 of shape {(height, width, 3)}, that is (height, "
                f"width, 3), got {pixels.dtype} of shape {pixels.shape}"
            )
        frames[i] = pixels
    return frames


def _lerax_renderer(env: Any) -> Renderer:
    """The renderer of a lerax environment: the step computes its shapes, the host paints them."""
    picture_of = trace_picture(env)
    # What the numbers mean (kinds and texts of the shapes), known once `observe` was traced.
    static: list[Any] = []

    def observe(states: Any) -> Any:
        def numbers(state: Any) -> Any:
            view, background, shapes = picture_of(state)
            static[:] = [(view.y_up, [(shape.kind, shape.text) for shape in shapes])]
            transform = (view.width, view.height, view.scale, view.offset)
            return transform, background, [(shape.color, shape.numbers) for shape in shapes]

        return jax.vmap(numbers)(states)

    def draw(observed: Any, width: int, height: int) -> np.ndarray:
        (y_up, kinds), (transform, background, parts) = static[0], observed
        shapes = tuple(
            Shape(kind, color, numbers, text)
            for (kind, text), (color, numbers) in zip(kinds, parts, strict=True)
        )
        picture = Picture(View(*transform, y_up=y_up), background, shapes)
        return paint(picture, width, height)

    return Renderer(observe, draw)


def trace_picture(env: Any) -> Callable[[Any], Picture]:
    """A function of a state that gives what `env.render` draws, as numbers, in compiled code.

    The environment draws on a `RecordingRenderer`, in the view of `env.default_renderer`. So no
    window opens, pygame is not needed, and the host draws without JAX.

    Raises:
        ValueError: if `env.default_renderer` does not make a `PygameRenderer`.
    """
    scene = env.unwrapped
    make = getattr(type(scene), "default_renderer", None)
    if not isinstance(make, types.FunctionType) or "PygameRenderer" not in make.__globals__:
        raise ValueError(
            f"`default_renderer` of {type(scene).__name__} does not make a `PygameRenderer`, the "
            "only kind that can be recorded. Pass `render=` to `LoggingCallback`."
        )
    # The view (`transform`) exists only on the renderer that `default_renderer` makes, and making
    # it has side effects (seen with lerax 0.0.5, pygame 2.6): it needs the extra `lerax[render]`,
    # and `pygame.init()` installs handlers for SIGTERM and SIGSEGV and opens an audio device, also
    # under `SDL_VIDEODRIVER=dummy`. So we call a copy of the method in which the global name
    # `PygameRenderer` is our own class; the original method and its module stay as they are.
    make_recording = types.FunctionType(
        make.__code__,
        {**make.__globals__, "PygameRenderer": _recording_renderer_class()},
        make.__name__,
        make.__defaults__,
        make.__closure__,
    )

    def picture_of(state: Any) -> Picture:
        renderer = make_recording(scene)
        scene.render(getattr(state, "unwrapped", state), renderer)
        transform = renderer.transform
        view = View(
            *(transform.width, transform.height, transform.scale, transform.offset),
            y_up=bool(transform.y_up),
        )
        return Picture(view, _rgb(renderer.background_color), tuple(renderer.shapes))

    return picture_of


def _rgb(color: Any) -> Float[Array, "3"]:
    return jnp.stack([jnp.asarray(part, jnp.float32) for part in (color.r, color.g, color.b)])


def _recording_renderer_class() -> Any:
    """`RecordingRenderer`, made on demand because lerax may not be installed."""
    render = importlib.import_module("lerax.render")

    @final
    class RecordingRenderer(render.Abstract2DRenderer):
        """Records the shapes that are drawn since `clear`, with tracers as their numbers."""

        transform: Any
        background_color: Any
        shapes: list[Shape]

        def __init__(
            self, width: Any, height: Any, background_color: Any = None, transform: Any = None
        ) -> None:
            if transform is None:
                transform = render.Transform(width, height, scale=1.0, offset=jnp.zeros(2))
            self.transform = transform
            self.background_color = render.WHITE if background_color is None else background_color
            self.shapes = []

        def _record(self, kind: str, color: Any, *numbers: Any, text: str = "") -> None:
            arrays = tuple(jnp.asarray(number, jnp.float32) for number in numbers)
            self.shapes.append(Shape(kind, _rgb(color), arrays, text))

        def open(self) -> None:
            pass

        def close(self) -> None:
            pass

        def draw(self) -> None:
            pass

        def clear(self) -> None:
            self.shapes.clear()

        def as_array(self) -> Any:
            raise TypeError("there are no pixels while the environment is traced")

        def draw_circle(self, center: Any, radius: Any, color: Any) -> None:
            self._record("circle", color, center, radius)

        def draw_line(self, start: Any, end: Any, color: Any, width: Any = 1) -> None:
            self._record("line", color, start, end, width)

        def draw_rect(self, center: Any, w: Any, h: Any, color: Any) -> None:
            self._record("rect", color, center, w, h)

        def draw_polygon(self, points: Any, color: Any) -> None:
            self._record("polygon", color, points)

        def draw_text(self, center: Any, text: str, color: Any, size: Any = 12) -> None:
            self._record("text", color, center, size, text=text)

        def draw_polyline(self, points: Any, color: Any) -> None:
            self._record("polyline", color, points)

        def draw_ellipse(self, center: Any, w: Any, h: Any, color: Any) -> None:
            self._record("ellipse", color, center, w, h)

    return RecordingRenderer
