"""Which values are secrets, masked before anything is written: by name, and passwords in URLs.

The value is a secret if it is a string, not empty, and its name

- has `password`, `secret`, `credential`, `api_key` or one like these in it, however it is written
  (`apiKey`, `--api-key`), or
- ends in the word `token`, unless the word before says which token of a vocabulary it is
  (`pad_token`), or the value is a number or looks like such a token (`<pad>`, `[MASK]`).

`num_tokens`, `max_tokens`, `tokenizer` and `token_dim` are no secrets.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = (
    *("password", "passwd", "passphrase", "secret", "credential"),
    *("apikey", "accesskey", "privatekey", "authkey", "licensekey"),
)
_VOCABULARY = {
    *("pad", "eos", "bos", "sos", "unk", "mask", "sep", "cls", "start", "end", "stop", "special"),
    *("image", "audio", "video", "text", "class", "next", "first", "last", "num", "max", "min"),
    *("prefix", "suffix", "per", "eot", "blank", "extra", "additional"),
}
_VOCABULARY_VALUE = re.compile(r"[<\[|(].*|[0-9.,_+-]*")
# The password of `scheme://user:password@host`.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)")


def mask_value(name: str, value: Any) -> Any:
    """A value, masked if it is a secret by its name; a string without the passwords of URLs."""
    if isinstance(value, list):
        return [mask_value(name, member) for member in value]
    if not isinstance(value, str) or not value:
        return value
    return MASK if _is_secret(name, value) else _URL.sub(rf"\1{MASK}", value)


def mask_command(arguments: Sequence[str]) -> list[str]:
    """A command line with its secrets masked: `--api-key X`, `--api-key=X`, `KEY=X`, URLs."""
    masked: list[str] = []
    flag = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if flag and not argument.startswith("-"):
            argument = mask_value(flag, argument)
        elif equals and re.fullmatch(r"[\w.:/+~-]+", name):
            argument = f"{name}={mask_value(name, value)}"
        else:
            argument = mask_value("", argument)
        flag = name if name.startswith("-") and not equals else ""
        masked.append(argument)
    return masked


def hides_command(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user wants the command line in no log: `LERAX_DIST_HIDE_COMMAND=1`."""
    return environ.get("LERAX_DIST_HIDE_COMMAND", "").lower() not in ("", "0", "false")


def _is_secret(name: str, value: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if any(part in "".join(words) for part in _SECRET):
        return True
    if not words or words[-1] not in ("token", "authtoken"):
        return False
    return _VOCABULARY.isdisjoint(words[-2:-1]) and _VOCABULARY_VALUE.fullmatch(value) is None
