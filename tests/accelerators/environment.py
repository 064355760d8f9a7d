"""Virtual environments with the compilers for TPU and GPU, 2 GB each, from the registry."""

from tests.newest.environment import environment

# The oldest jax that the tests know, and the newest there is.
_VERSIONS = {"oldest": ("3.11", "==0.10.2"), "newest": ("3.13", "")}
ENVIRONMENTS = tuple(_VERSIONS)


def python_of(name: str) -> str:
    """The interpreter of one of `ENVIRONMENTS`."""
    python, jax = _VERSIONS[name]
    packages = (f"jax[tpu]{jax}", f"jax-cuda12-plugin{jax}", "nvidia-cuda-nvcc-cu12")
    return environment(f"accelerators-{name}", python, *packages)
