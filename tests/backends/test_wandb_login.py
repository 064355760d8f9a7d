from types import SimpleNamespace

import pytest

from lerax_dist.backends._wandb_login import _in_plain_netrc, has_credentials

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
def test_netrc_counts_for_its_own_host_only(tmp_path, machine, found):
    (tmp_path / ".netrc").write_text(f"machine {machine}\n  login u\n  password {'0' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert _in_plain_netrc(HOST) is found


def test_no_netrc_and_one_that_cannot_be_parsed_hold_no_key(tmp_path):
    assert not _in_plain_netrc(HOST)
    (tmp_path / ".netrc").write_text("nonsense {")
    assert not _in_plain_netrc(HOST)
