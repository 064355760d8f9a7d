"""The order of operations of TPUs and GPUs, on the CPUs that are here."""

import pytest

from lerax_dist.device import _callback, _sender


def order_of(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as for devices of `platform`."""
    for module in (_callback, _sender):
        monkeypatch.setattr(module, "platform_of", lambda *_, **__: platform)


@pytest.fixture(params=["cpu", "tpu"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of them."""
    order_of(request.param, monkeypatch)
    return request.param
