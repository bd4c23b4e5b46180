"""The inventory file: which databases there are, and whom a policy's groups mean in Slack."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from approvals.words import BadInputError
from jobs.operation import CriticalQuery, Database, Tier

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_BYTES_MAX: Final = 1_000_000
_EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "policy": "policy: policy.yml",
        "groups": "groups: {dba: S0123ABCD}",
        "databases": "databases: {orders: {dsn: ..., environment: production, ...}}",
        "dsn": "dsn: postgresql://twokey@db1/orders   or   dsn: {env: ORDERS_DSN}",
        "env": "dsn: {env: ORDERS_DSN}",
        "file": "dsn: {file: /run/secrets/orders_dsn}",
        "environment": "environment: production",
        "tier": f"tier: {Tier.CRITICAL}   (or {', '.join(list(Tier)[1:])})",
        "channel": "channel: C0123ABCD   (the id, not the name)",
        "backup_folder": "backup_folder: /var/backups/orders",
        "critical_queries": "critical_queries: [{name: orders exist, sql: SELECT 1 FROM orders}]",
    }
)

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_SlackChannel = Annotated[str, StringConstraints(pattern=r"^[CG][A-Z0-9]{2,20}$")]
_SlackGroup = Annotated[str, StringConstraints(pattern=r"^S[A-Z0-9]{2,20}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _FromEnvironment(_Strict):
    env: _Text


class _FromFile(_Strict):
    file: Path


class _Query(_Strict):
    name: _Text
    sql: _Text
    expect: str | None = None


class _Entry(_Strict):
    dsn: _FromEnvironment | _FromFile | _Text
    environment: _Text
    tier: Tier
    channel: _SlackChannel
    backup_folder: Path
    critical_queries: tuple[_Query, ...] = ()


class _File(_Strict):
    policy: Path
    groups: Mapping[_Text, _SlackGroup] = Field(default_factory=dict)
    databases: Mapping[str, _Entry] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the file says. Paths are absolute, secrets are read."""

    path: Path
    policy: Path
    groups: Mapping[str, str]  # the policy's name for a group -> Slack's user group id
    databases: Mapping[str, Database]

    def database(self, name: str) -> Database:
        """The database of this name.

        Raises:
            BadInputError: there is none; says the nearest name.
        """
        if found := self.databases.get(name):
            return found
        near = difflib.get_close_matches(name, self.databases, n=1, cutoff=0.5)
        raise BadInputError(
            f"There is no database called {name} in the inventory.",
            next_step=f"Did you mean {near[0]}?"
            if near
            else f"The databases are: {', '.join(sorted(self.databases))}.",
        )


def load_inventory(path: Path, environ: Mapping[str, str] = os.environ) -> Inventory:
    """Read and check an inventory file. Relative paths count from its folder.

    Raises:
        BadInputError: the file cannot be read or used. Says which key, and shows an example;
            a DSN's text is never repeated.
    """
    return parse_inventory(_read(path), path=path.absolute(), environ=environ)


def parse_inventory(text: str, *, path: Path, environ: Mapping[str, str]) -> Inventory:
    """The inventory in `text`; `path` says where it stands.

    Raises:
        BadInputError: as `load_inventory`.
    """
    folder = path.parent
    content = _validated(text, path)
    for name in content.databases:
        if _NAME.fullmatch(name) is None:
            raise _wrong(
                path,
                f"databases.{name}",
                "a database's name is a lower-case letter, then up to 62 of a-z, 0-9, _ and -",
                "databases: {orders: ...}",
            )
    databases = {
        name: _database(name, entry, path=path, environ=environ)
        for name, entry in content.databases.items()
    }
    return Inventory(
        path=path,
        policy=folder / content.policy.expanduser(),
        groups=MappingProxyType(dict(content.groups)),
        databases=MappingProxyType(databases),
    )


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise BadInputError(
                f"The inventory {path} is larger than {_BYTES_MAX} bytes.",
                next_step="Point TWOKEY_CONFIG to the right file.",
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(
            f"The inventory {path} cannot be read: {error.strerror}.",
            next_step="Copy twokey.example.yml there and fill it in, or set TWOKEY_CONFIG.",
        ) from None
    except UnicodeDecodeError:
        raise BadInputError(
            f"The inventory {path} is not UTF-8 text.", next_step="Save the file as UTF-8."
        ) from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML where a key that stands twice is an error, not the last one's victory."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Hashable, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _validated(text: str, path: Path) -> _File:
    try:
        # A SafeLoader with one constructor replaced by a stricter one.
        raw = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506
    except (yaml.YAMLError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise BadInputError(
            f"The inventory {path} is no valid YAML{where}: {problem}.",
            next_step="Compare it with twokey.example.yml.",
        ) from None
    if not isinstance(raw, dict):
        raise _wrong(path, "the file", "must be a mapping of keys", _EXAMPLES["databases"])
    try:
        return _File.model_validate(raw)
    except ValidationError as error:
        # The last complaint about a union's member says no more than the first.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        names = [str(part) for part in first["loc"] if not _is_union_tag(part)]
        raise _wrong(path, ".".join(names), first["msg"], _example(names)) from None


def _is_union_tag(part: int | str) -> bool:
    return isinstance(part, str) and (part.startswith(("_From", "constrained-str", "function-")))


def _example(names: list[str]) -> str:
    return next((_EXAMPLES[name] for name in reversed(names) if name in _EXAMPLES), "")


def _wrong(path: Path, key: str, problem: str, example: str) -> BadInputError:
    return BadInputError(
        f"In the inventory {path}, {key}: {problem[0].lower()}{problem[1:].rstrip('.')}.",
        next_step=f"Write it like this: {example}"
        if example
        else "Compare it with twokey.example.yml, which explains every key.",
    )


def _database(name: str, entry: _Entry, *, path: Path, environ: Mapping[str, str]) -> Database:
    return Database(
        name=name,
        dsn=_dsn(name, entry.dsn, path=path, environ=environ),
        environment=entry.environment,
        tier=entry.tier,
        channel=entry.channel,
        backup_folder=path.parent / entry.backup_folder.expanduser(),
        critical_queries=tuple(
            CriticalQuery(name=query.name, sql=query.sql, expect=query.expect)
            for query in entry.critical_queries
        ),
    )


def _dsn(
    name: str,
    source: _FromEnvironment | _FromFile | str,
    *,
    path: Path,
    environ: Mapping[str, str],
) -> str:
    key = f"databases.{name}.dsn"
    match source:
        case _FromEnvironment(env=variable):
            dsn = environ.get(variable, "")
            missing = f"the environment variable {variable} is not set"
        case _FromFile(file=file):
            missing = f"the file {file} cannot be read or is empty"
            try:
                dsn = (path.parent / file.expanduser()).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                dsn = ""
        case _:
            dsn, missing = source, "is empty"
    if not dsn:
        raise _wrong(path, key, missing, _EXAMPLES["dsn"])
    if not dsn.startswith(("postgresql://", "postgres://")):
        raise _wrong(path, key, "a DSN starts with postgresql://", _EXAMPLES["dsn"])
    return dsn
