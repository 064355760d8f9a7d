"""What is masked before anything is written, and what is not."""

import shlex
import sys

import pytest

import lerax_dist as ld
from lerax_dist._secrets import mask_command, mask_value
from tests.memory import Memory

SECRETS = [
    *("token", "hf_token", "HF_TOKEN", "hfToken", "wandb.token", "bearer-token", "authtoken"),
    *("api_key", "apiKey", "OPENAI_API_KEY", "api_keys", "wandb.api_key", "--api-key"),
    *("password", "db.password", "dbPassword", "passwd", "passphrase", "credentials.user"),
    *("secret", "client_secret", "aws_secret_access_key", "private_key", "accessKey"),
]
NO_SECRETS = [
    *("num_tokens", "max_tokens", "tokens", "tokenizer", "token_dim", "token_embedding"),
    *("pad_token", "eos_token", "next_token", "key", "seed_key", "keyboard", "pwd", "lr"),
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_string_is_masked_by_its_name_and_a_number_is_not(name):
    assert mask_value(name, "s3cr3t") == "***"
    assert mask_value(name, ["s3cr3t", 1]) == ["***", 1]
    assert (mask_value(name, 3), mask_value(name, ""), mask_value(name, None)) == (3, "", None)


@pytest.mark.parametrize("name", NO_SECRETS)
def test_hyperparameters_with_such_words_are_not(name):
    assert mask_value(name, "gpt2") == "gpt2"


@pytest.mark.parametrize("value", ["<pad>", "[MASK]", "<|endoftext|>", "128", "-1"])
def test_a_token_of_a_vocabulary_is_not(value):
    assert mask_value("my_token", value) == value


def test_the_password_of_a_url_is_masked_under_any_name():
    assert mask_value("db", "postgres://u:pw@h:5/x") == "postgres://u:***@h:5/x"
    assert mask_value("git", "ssh://git@host:22/x") == "ssh://git@host:22/x"
    assert mask_value("time", "http://host:80/a@b") == "http://host:80/a@b"


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("train.py --api-key X --lr 1", "train.py --api-key *** --lr 1"),
        ("train.py --api-key=X y", "train.py --api-key=*** y"),
        ("+wandb.api_key=X WANDB_API_KEY=X -Dhf_token=X", None),
        ("--use-token --lr 1", "--use-token --lr 1"),
        ("--max-tokens 5 --tokenizer=gpt2", "--max-tokens 5 --tokenizer=gpt2"),
        ("--url http://u:X@h --db=pg://u:X@h", "--url http://u:***@h --db=pg://u:***@h"),
        ("-c print(1)==2", "-c print(1)==2"),
    ],
)
def test_a_command_line_is_masked_by_its_flags(line, masked):
    found = mask_command(line.split())
    assert " ".join(found) == (line.replace("X", "***") if masked is None else masked)


def test_nothing_that_is_written_has_the_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "orig_argv", ["python", "t.py", "--token", "s3cr3t", "--lr", "1"])
    backends = [ld.TensorBoardBackend(tmp_path), ld.JSONLBackend(tmp_path), ld.ConsoleBackend()]
    hparams = {"hub": {"api_key": "s3cr3t", "url": "http://me:s3cr3t@host"}, "num_tokens": 7}
    with ld.Logger(backends, "r", hparams=hparams) as logger:
        logger.log_hparams({"password": "s3cr3t"})
        logger.log({"x": 1.0}, 0)
    for path in logger.run_dir.rglob("*"):
        assert path.is_dir() or b"s3cr3t" not in path.read_bytes(), path
    assert "s3cr3t" not in capsys.readouterr().out
    run = ld.read_run(logger.run_dir)
    assert shlex.split(run.facts["command"]) == ["python", "t.py", "--token", "***", "--lr", "1"]
    assert (run.hparams["hub.api_key"], run.hparams["num_tokens"]) == ("***", 7)


def test_a_switch_leaves_the_command_line_out(tmp_path, monkeypatch):
    monkeypatch.setenv("LERAX_DIST_HIDE_COMMAND", "1")
    with ld.Logger(Memory(), "r", log_dir=tmp_path) as logger:
        pass
    assert ld.read_run(logger.run_dir).facts["command"] is None
