"""The command line itself."""

import tomllib
from pathlib import Path

import pytest

import lerax_dist
from lerax_dist.cli import main


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lerax-dist {lerax_dist.__version__}\n"


@pytest.mark.parametrize("command", [[], ["doctor"], ["replay"], ["ls"]])
def test_help_fits_a_terminal_and_says_what_it_does(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 100 for line in text.splitlines())
    assert " ".join(["usage: lerax-dist", *command]) in text


@pytest.mark.parametrize(
    "arguments", [[], ["doktor"], ["doctor", "--timeout", "0"], ["doctor", "--timeout", "soon"]]
)
def test_what_makes_no_sense_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: lerax-dist" in capsys.readouterr().err


def test_the_script_is_declared():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"lerax-dist": "lerax_dist.cli:main"}
