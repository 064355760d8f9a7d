import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from lerax_dist.backends import WandbBackend
from lerax_dist.backends._wandb import has_credentials, why_no_answer

HOST = "https://wandb.example.org"


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


def settings(api_key: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(api_key=api_key, base_url=HOST)


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_a_variable_is_enough(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert has_credentials(settings())


def test_a_key_in_the_settings_is_enough():
    assert has_credentials(settings(api_key="x"))


@pytest.mark.parametrize(
    ("machine", "found"), [("wandb.example.org", True), ("api.wandb.ai", False)]
)
@pytest.mark.parametrize("wandb_looks", [True, False])
def test_netrc_counts_for_its_own_host_only(tmp_path, monkeypatch, machine, found, wandb_looks):
    if not wandb_looks:
        monkeypatch.setitem(sys.modules, "wandb.sdk.lib.wbauth", None)
    (tmp_path / ".netrc").write_text(f"machine {machine}\n  login u\n  password {'0' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert has_credentials(settings()) is found


def test_no_netrc_and_one_that_cannot_be_parsed_hold_no_key(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.wbauth", None)
    assert not has_credentials(settings())
    (tmp_path / ".netrc").write_text("nonsense {")
    assert not has_credentials(settings())


def problems(monkeypatch, *, mode="online", api_key: str | None = "x", url=HOST, timeout=5.0):
    """What `check_setup` finds with these settings of W&B."""
    found = SimpleNamespace(settings=SimpleNamespace(mode=mode, api_key=api_key, base_url=url))
    wandb = SimpleNamespace(Settings=lambda **options: options, setup=lambda settings: found)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.wbauth", None)
    return WandbBackend.check_setup(timeout)


def test_the_doctor_says_that_wandb_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    (found,) = WandbBackend.check_setup(1.0)
    assert (found.level, "pip install wandb" in found.fix) == ("warning", True)
    assert "process 0 cannot use W&B (" in found.what


def test_the_doctor_says_why_runs_are_offline(monkeypatch):
    (found,) = problems(monkeypatch, mode="offline")
    assert (found.level, found.what) == ("warning", "W&B is offline by its settings")
    (found,) = problems(monkeypatch, api_key=None)
    assert (found.level, "finds no API key" in found.what) == ("warning", True)


def test_the_doctor_asks_the_server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert problems(monkeypatch, url=url, timeout=30.0) == []
        server.shutdown()
    assert len(asked) == 1
    (found,) = problems(monkeypatch, url=url, timeout=30.0)
    assert f"W&B's server {url} does not answer process 0 (" in found.what


def test_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert "Connection refused" in why_no_answer(url, 30.0)
        taken.listen()  # accepts the connection, and sends nothing
        assert why_no_answer(url, 0.2) != ""
    assert why_no_answer("nonsense", 1.0) != ""
