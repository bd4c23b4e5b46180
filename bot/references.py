"""Where a secret stands, instead of the secret: `env:NAME` or `file:PATH`.

What such a reference names is read once, when the process starts: a secret that was
replaced is used after a restart.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

SECRET_BYTES_MAX: Final = 64_000
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


class NoSecretError(ValueError):
    """A reference leads to no secret. What it says names the reference alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FromEnvironment:
    """The value of a variable of the environment."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FromFile:
    """What a file says, without white space around it."""

    path: Path


Reference = FromEnvironment | FromFile


def reference_in(text: str) -> Reference | None:
    """The reference that `text` is, or None when it is the secret itself."""
    kind, colon, rest = text.strip().partition(":")
    match kind, colon:
        case "env", ":":
            return FromEnvironment(name=rest.strip())
        case "file", ":":
            return FromFile(path=Path(rest.strip()))
        case _:
            return None


def read_reference(reference: Reference, *, folder: Path, environ: Mapping[str, str]) -> SecretStr:
    """The secret. A relative path counts from `folder`.

    Raises:
        NoSecretError: there is none.
    """
    match reference:
        case FromEnvironment(name=name):
            if not _NAME.fullmatch(name):
                raise NoSecretError("env: must be followed by the name of a variable")
            value, missing = environ.get(name, ""), f"the environment variable {name} is not set"
        case FromFile(path=path):
            value = _content(folder / path.expanduser())
            missing = f"the file {path} cannot be read or is empty"
    if not value.strip():
        raise NoSecretError(missing)
    return SecretStr(value.strip())


def secret_of(text: SecretStr, *, folder: Path, environ: Mapping[str, str]) -> SecretStr:
    """The secret itself, or what it refers to.

    Raises:
        NoSecretError: it refers to nothing.
    """
    reference = reference_in(text.get_secret_value())
    return text if reference is None else read_reference(reference, folder=folder, environ=environ)


def files_in(texts: Iterable[str]) -> list[Path]:
    """The files that any of these texts refer to."""
    found = (reference_in(text) for text in texts)
    return [reference.path.expanduser() for reference in found if isinstance(reference, FromFile)]


def is_open_to_others(path: Path) -> bool:
    """Whether group or others may do anything with a file; no file is open to nobody."""
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False


def _content(path: Path) -> str:
    try:
        if path.stat().st_size > SECRET_BYTES_MAX:
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
