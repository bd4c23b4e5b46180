"""Looks at everything that Twokey needs, and says for each finding how to mend it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

from pydantic import SecretStr

from approvals.counting import count_text
from approvals.policy_file import LoadedPolicy, load_policy
from approvals.words import ExplainedError
from bot.doctor_anchors import examine_anchors
from bot.doctor_archive import examine_archive
from bot.doctor_backups import examine_engine
from bot.doctor_drills import examine_drills
from bot.doctor_migrations import examine_migrations
from bot.doctor_monitoring import examine_monitoring
from bot.doctor_policy import examine_policies
from bot.doctor_secrets import examine_secrets
from bot.doctor_slack import examine_slack
from bot.doctor_store import examine_store_place
from bot.finding import Finding
from bot.http import readiness
from bot.inventory import Inventory, load_inventory
from bot.process import utc_now
from bot.redact import redact
from bot.settings import Settings, load_settings
from bot.storage import reachable_dsn, vote_keys
from jobs.operation import Database
from jobs.reader import Readers
from jobs.routes import Routes
from postgres.binaries import find_binaries
from postgres.errors import PostgresError
from store.connect import connect

LIMIT: Final = timedelta(seconds=5)
PROGRAMS: Final = ("pg_basebackup", "pg_verifybackup", "pg_ctl", "initdb")
PRIVILEGES: Final = """
    SELECT rolsuper OR pg_has_role(current_user, 'pg_monitor', 'USAGE') AS may_monitor,
           rolsuper OR rolreplication                                   AS may_replicate,
           current_setting('server_version')                            AS version,
           quote_ident(current_user)                                    AS role
      FROM pg_roles
     WHERE rolname = current_user
"""


async def examine(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Everything, in the order in which one would mend it."""
    try:
        settings = load_settings()
        inventory = load_inventory(settings.config, environ)
    except ExplainedError as error:
        return [_without_secrets(_bad("settings", error.problem, error.next_step))]
    databases = count_text(len(inventory.databases), "database")
    found = [
        _good("settings", "read"),
        _good("inventory", f"{databases} in {inventory.path}"),
    ]
    found += examine_secrets(settings, inventory, environ)
    policy, finding = _policy(inventory)
    found += [finding, _key(settings), _tools(environ)]
    found += await _store(settings, inventory, environ)
    found += examine_anchors(inventory.anchors, now=utc_now(), is_needed=settings.store is not None)
    found += [finding async for finding in _databases(inventory, environ)]
    groups = {**inventory.groups, **(policy.values.groups if policy else {})}
    found += [finding async for finding in examine_slack(settings, inventory, groups)]
    return [_without_secrets(finding) for finding in found]


def _policy(inventory: Inventory) -> tuple[LoadedPolicy | None, Finding]:
    try:
        policy = load_policy(inventory.policy)
    except ExplainedError as error:
        return None, _bad("policy file", error.problem, error.next_step)
    rules = count_text(len(policy.values.rules), "rule")
    return policy, _good("policy file", f"{rules}, hash {policy.hash[:12]}")


def _key(settings: Settings) -> Finding:
    try:
        vote_keys(settings)
    except (ExplainedError, OSError) as error:
        fix = getattr(error, "next_step", "Set TWOKEY_VOTE_KEY.")
        return _bad("vote key", str(error), fix)
    return _good("vote key", "there")


def _tools(environ: Mapping[str, str]) -> Finding:
    try:
        binaries = find_binaries(environ)
        missing = [name for name in PROGRAMS if not binaries.program(name).exists()]
    except PostgresError as error:
        return _bad("backup tools", error.problem, error.next_step)
    if missing:
        return _bad(
            "backup tools",
            f"{binaries.folder} lacks {', '.join(missing)}.",
            "Point TWOKEY_PG_BIN to a folder with all of PostgreSQL's programs.",
        )
    return _good("backup tools", f"PostgreSQL {binaries.version} in {binaries.folder}")


async def _store(
    settings: Settings, inventory: Inventory, environ: Mapping[str, str]
) -> list[Finding]:
    if settings.store is not None:
        return await _examined(settings.store, settings, inventory)
    trying = f"embedded, under {settings.home}: for trying things out"
    try:
        dsn = await reachable_dsn(settings, environ)
    except PostgresError as error:
        return [_bad("store", error.problem, error.next_step)]
    if dsn is None:
        return [_good("store", f"{trying}; it does not run, so what is in it was not looked at")]
    return [_good("store", trying), *await _examined(dsn, settings, inventory)]


async def _examined(dsn: SecretStr, settings: Settings, inventory: Inventory) -> list[Finding]:
    store = connect(dsn, size=1)
    try:
        checks = await readiness(store, now=utc_now())
        policies = await examine_policies(settings, inventory, store)
        place = await examine_store_place(store, inventory.databases, clock=utc_now)
    finally:
        await store.close()
    fixes = {
        "store": "Check TWOKEY_STORE, and that its server is up and lets this host in.",
        "schema": "Run: twokey store upgrade",
        "outbox": "Look at the Slack findings below, and that a bot runs.",
    }
    said = [
        Finding(name=check.name, ok=check.ok, says=check.says, fix=fixes[check.name])
        for check in checks
    ]
    return [*said, *place, *policies]


async def _databases(inventory: Inventory, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    readers, routes = Readers(statement_timeout=LIMIT), Routes(clock=utc_now)
    try:
        for _, named in sorted(inventory.databases.items()):
            database = await routes.of(named)
            yield await _database(database, readers)
            yield _folder(database)
            for finding in await examine_engine(database, environ):
                yield finding
            for finding in await examine_archive(database, readers.of(database)):
                yield finding
            async for finding in examine_monitoring(database, readers):
                yield finding
            async for finding in examine_migrations(database, readers):
                yield finding
            for finding in examine_drills(database):
                yield finding
    finally:
        await readers.close()


async def _database(database: Database, readers: Readers) -> Finding:
    name = f"database {database.name}"
    try:
        async with asyncio.timeout(2 * LIMIT.total_seconds()):
            [row] = await readers.of(database).rows(PRIVILEGES)
    except ExplainedError as error:
        return _bad(name, error.problem, error.next_step)
    except TimeoutError:
        return _bad(name, "It does not answer.", "Check its server and the way to it.")
    role = row["role"]
    lacking = {
        f"GRANT pg_monitor TO {role};": not row["may_monitor"],
        f"ALTER ROLE {role} REPLICATION;": not row["may_replicate"],
    }
    if any(lacking.values()):
        statements = " ".join(statement for statement, lacks in lacking.items() if lacks)
        return _bad(
            name, f"The user {role} lacks privileges there.", f"As a superuser: {statements}"
        )
    return _good(name, f"PostgreSQL {row['version']}, privileges in order")


def _folder(database: Database) -> Finding:
    name, folder = f"backups of {database.name}", database.backup_folder
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(parent, os.W_OK):
        return _good(name, f"{folder} can be written")
    return _bad(
        name,
        f"{folder} cannot be written by this user.",
        f"Create {folder} for the user that runs the worker. A bot alone does not need it.",
    )


def _without_secrets(finding: Finding) -> Finding:
    """A server's or a library's own words may repeat what we sent."""
    return replace(finding, says=redact(finding.says), fix=redact(finding.fix))


def _good(name: str, says: str) -> Finding:
    return Finding(name=name, ok=True, says=says)


def _bad(name: str, says: str, fix: str) -> Finding:
    return Finding(name=name, ok=False, says=says, fix=fix)
