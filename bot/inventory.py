"""The inventory file: which databases there are, and whom a policy's groups mean in Slack."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeVar

import yaml
from pydantic import Field, SecretStr, StringConstraints, ValidationError

from approvals.words import BadInputError
from approvals.yaml_text import read_yaml
from bot.anchoring import AnchorPlace, AnchorsEntry
from bot.backup_entries import EXAMPLES as BACKUP_EXAMPLES
from bot.backup_entries import BackupsEntry, settings_of
from bot.cluster_entries import EXAMPLES as CLUSTER_EXAMPLES
from bot.cluster_entries import ClusterEntry, cluster_of
from bot.entry_values import SlackChannel, Strict, Text
from bot.migration_entries import EXAMPLES as MIGRATION_EXAMPLES
from bot.migration_entries import MigrationsEntry, migrations_of
from bot.monitoring_entries import EXAMPLES as MONITORING_EXAMPLES
from bot.monitoring_entries import MonitoringEntry, ReplicaEntry, monitoring_of
from bot.redact import remember_secrets
from bot.references import (
    FromEnvironment,
    FromFile,
    NoSecretError,
    Reference,
    files_in,
    read_reference,
    secret_of,
)
from jobs.health_settings import Node
from jobs.operation import CriticalQuery, Database, Tier

T = TypeVar("T")
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_BYTES_MAX: Final = 1_000_000
_REPLICAS_MAX: Final = 50
_EXAMPLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "policy": "policy: policy.yml",
        "groups": "groups: {dba: S0123ABCD}",
        "databases": "databases: {orders: {dsn: ..., environment: production, ...}}",
        "dsn": "dsn: env:ORDERS_DSN   or   dsn: file:/run/secrets/orders_dsn",
        "env": "dsn: {env: ORDERS_DSN}",
        "file": "dsn: {file: /run/secrets/orders_dsn}",
        "environment": "environment: production",
        "tier": f"tier: {Tier.CRITICAL}   (or {', '.join(list(Tier)[1:])})",
        "channel": "channel: C0123ABCD   (the id, not the name)",
        "backup_folder": "backup_folder: /var/backups/orders",
        "anchors": "anchors: {channel: C0123ABCD, file: /var/lib/twokey/anchors}",
        "critical_queries": "critical_queries: [{name: orders exist, sql: SELECT 1 FROM orders}]",
        **BACKUP_EXAMPLES,
        **MONITORING_EXAMPLES,
        **MIGRATION_EXAMPLES,
        **CLUSTER_EXAMPLES,
    }
)

_SlackGroup = Annotated[str, StringConstraints(pattern=r"^S[A-Z0-9]{2,20}$")]


class _FromEnvironment(Strict):
    env: Text


class _FromFile(Strict):
    file: Path


# A secret, or where it stands: `env:NAME` and `file:PATH` say the same as the mappings.
_Secret = _FromEnvironment | _FromFile | Annotated[SecretStr, Field(min_length=1)]


class _Query(Strict):
    name: Text
    sql: Text
    expect: str | None = None


class _Entry(Strict):
    dsn: _Secret
    environment: Text
    tier: Tier
    channel: SlackChannel
    backup_folder: Path
    critical_queries: tuple[_Query, ...] = ()
    backups: BackupsEntry | None = None
    monitoring: MonitoringEntry | Literal[False] | None = None
    migrations: MigrationsEntry | None = None
    cluster: ClusterEntry | None = None
    region: str = ""
    replicas: Annotated[tuple[ReplicaEntry, ...], Field(max_length=_REPLICAS_MAX)] = ()


class _File(Strict):
    policy: Path
    groups: Mapping[Text, _SlackGroup] = Field(default_factory=dict)
    databases: Mapping[str, _Entry] = Field(min_length=1)
    anchors: AnchorsEntry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What the file says. Paths are absolute, secrets are read."""

    path: Path
    policy: Path
    groups: Mapping[str, str]  # the policy's name for a group -> Slack's user group id
    databases: Mapping[str, Database]
    secret_files: tuple[Path, ...] = ()  # those that it refers to, for `doctor`
    anchors: AnchorPlace | None = None  # where and when the audit is anchored

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
            a DSN's text is never repeated, here or in what this process writes later.
    """
    inventory = parse_inventory(_read(path), path=path.absolute(), environ=environ)
    remember_secrets(dsn for database in inventory.databases.values() for dsn in _dsns_of(database))
    remember_secrets(
        keys.identity
        for database in inventory.databases.values()
        if (keys := database.backups.encryption) and keys.identity
    )
    return inventory


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
    _check_before(databases, path)
    return Inventory(
        path=path,
        policy=folder / content.policy.expanduser(),
        groups=MappingProxyType(dict(content.groups)),
        databases=MappingProxyType(databases),
        secret_files=tuple(
            folder / file for entry in content.databases.values() for file in _file_of(entry.dsn)
        ),
        anchors=AnchorPlace.of(content.anchors, folder=folder) if content.anchors else None,
    )


def _check_before(databases: Mapping[str, Database], path: Path) -> None:
    """A migration is tried elsewhere first: in a database that there is, and another one."""
    for name, database in databases.items():
        strange = [one for one in database.migrations.before if one not in databases or one == name]
        if strange:
            key = f"databases.{name}.migrations.before"
            raise _wrong(
                path, key, f"{strange[0]} is no other database of this file",
                MIGRATION_EXAMPLES["before"],
            )  # fmt: skip


def _dsns_of(database: Database) -> list[SecretStr]:
    looking: tuple[SecretStr | None, ...] = (
        database.monitoring.dsn,
        database.monitoring.pgbouncer,
    )
    replicas = [replica.dsn for replica in database.replicas]
    cluster = database.cluster
    if cluster is not None:
        replicas += [node.dsn for node in cluster.nodes]
        replicas += [bouncer.admin for bouncer in cluster.bouncers]
        looking += (cluster.endpoint, cluster.password)
    return [database.dsn, *replicas, *(dsn for dsn in looking if dsn is not None)]


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


def _validated(text: str, path: Path) -> _File:
    try:
        raw = read_yaml(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
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
        is_no_secret = first["type"] == "model_type" and names[-1:] == ["dsn"]
        said = "must be a text or a reference" if is_no_secret else first["msg"]
        raise _wrong(path, ".".join(names), said, _example(names)) from None


def _is_union_tag(part: int | str) -> bool:
    return isinstance(part, str) and (
        part.startswith(("_From", "constrained-str", "function-", "SecretStr"))
    )


def _example(names: list[str]) -> str:
    return next((_EXAMPLES[name] for name in reversed(names) if name in _EXAMPLES), "")


def _examples(secret: str, part: str, cron: str) -> tuple[str, str, str]:
    return _EXAMPLES[secret], _EXAMPLES[part], _EXAMPLES[cron]


def _wrong(path: Path, key: str, problem: str, example: str) -> BadInputError:
    return BadInputError(
        f"In the inventory {path}, {key}: {problem[0].lower()}{problem[1:].rstrip('.')}.",
        next_step=f"Write it like this: {example}"
        if example
        else "Compare it with twokey.example.yml, which explains every key.",
    )


def _database(name: str, entry: _Entry, *, path: Path, environ: Mapping[str, str]) -> Database:
    folder, key = path.parent, f"databases.{name}"
    settled = partial(_settled, path=path, environ=environ)
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
        backups=settled(
            lambda secret: settings_of(entry.backups, folder=folder, secret=secret),
            f"{key}.backups",
            _examples("encryption", "backups", "cron"),
        ),
        monitoring=settled(
            lambda secret: monitoring_of(entry.monitoring, folder=folder, secret=secret),
            f"{key}.monitoring",
            _examples("dsn", "monitoring", "cron"),
        ),
        migrations=migrations_of(entry.migrations, folder=path.parent),
        region=entry.region,
        replicas=_replicas(name, entry.replicas, path=path, environ=environ),
        cluster=settled(
            lambda secret: cluster_of(entry.cluster, folder=folder, secret=secret),
            f"{key}.cluster",
            _examples("dsn", "cluster", "drills"),
        ),
    )


def _settled(
    make: Callable[[Callable[[SecretStr], SecretStr]], T],
    key: str,
    examples: tuple[str, str, str],
    *,
    path: Path,
    environ: Mapping[str, str],
) -> T:
    """What `make` makes of a part of the file; it is given how to read a secret.

    `examples`: of a secret, of the part, of a cron text.
    """

    def secret(given: SecretStr) -> SecretStr:
        return secret_of(given, folder=path.parent, environ=environ)

    try:
        return make(secret)
    except NoSecretError as error:
        raise _wrong(path, key, str(error), examples[0]) from None
    except ValueError as error:
        raise _wrong(path, key, str(error), examples[1]) from None
    except BadInputError as error:
        raise _wrong(path, key, error.problem, examples[2]) from None


def _replicas(
    name: str, entries: tuple[ReplicaEntry, ...], *, path: Path, environ: Mapping[str, str]
) -> tuple[Node, ...]:
    key = f"databases.{name}.replicas"
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names) or name in names:
        raise _wrong(
            path, key, "each needs a name of its own, and another than the database's",
            MONITORING_EXAMPLES["replicas"],
        )  # fmt: skip
    return tuple(
        Node(
            name=entry.name,
            region=entry.region,
            dsn=_dsn(f"{name}.replicas.{entry.name}", entry.dsn, path=path, environ=environ),
        )
        for entry in entries
    )


def _dsn(name: str, given: _Secret, *, path: Path, environ: Mapping[str, str]) -> SecretStr:
    key = f"databases.{name}.dsn"
    try:
        dsn = _read_secret(given, folder=path.parent, environ=environ)
    except NoSecretError as error:
        raise _wrong(path, key, str(error), _EXAMPLES["dsn"]) from None
    if not dsn.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise _wrong(path, key, "a DSN starts with postgresql://", _EXAMPLES["dsn"])
    return dsn


def _read_secret(given: _Secret, *, folder: Path, environ: Mapping[str, str]) -> SecretStr:
    match given:
        case _FromEnvironment(env=name):
            reference: Reference = FromEnvironment(name=name)
        case _FromFile(file=file):
            reference = FromFile(path=file)
        case _:
            return secret_of(given, folder=folder, environ=environ)
    return read_reference(reference, folder=folder, environ=environ)


def _file_of(given: _Secret) -> list[Path]:
    match given:
        case _FromFile(file=file):
            return [file.expanduser()]
        case SecretStr():
            return files_in([given.get_secret_value()])
        case _:
            return []
