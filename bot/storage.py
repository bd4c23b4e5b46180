"""Which store the settings mean, opened: a DSN, or the embedded server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pydantic import SecretStr

from approvals.words import BadInputError
from bot.embedded import embedded_store, kept_key, running_dsn
from bot.redact import remember_secrets
from bot.settings import Settings
from store.connect import Store, connect

_POOL_SIZE = 20


@asynccontextmanager
async def open_store(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Store]:
    """The store; an embedded one is started, migrated and stopped with the block.

    Raises:
        PostgresError: the embedded server cannot be started.
    """
    async with open_dsn(settings, environ) as dsn:
        store = connect(dsn, size=_POOL_SIZE)
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def open_dsn(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[SecretStr]:
    """The store's DSN; the embedded server runs at least as long as the block.

    Raises:
        PostgresError: the embedded server cannot be started.
    """
    if settings.store is not None:
        yield settings.store
        return
    async with embedded_store(settings.home, _programs(settings, environ)) as dsn:
        yield dsn


async def reachable_dsn(settings: Settings, environ: Mapping[str, str]) -> SecretStr | None:
    """The store's DSN without starting anything; None when the embedded server does not run.

    Raises:
        PostgresError: the embedded server cannot be looked at.
    """
    if settings.store is not None:
        return settings.store
    return await running_dsn(settings.home, _programs(settings, environ))


def vote_keys(settings: Settings) -> tuple[bytes, bytes | None]:
    """The key that signs votes and the one before it.

    With an embedded store a key is made under TWOKEY_HOME: store and key then live on one
    host, which is for trying things out.

    Raises:
        BadInputError: a store was given and no key.
    """
    previous = settings.vote_key_previous
    if settings.vote_key is None and settings.store is not None:
        raise BadInputError(
            "TWOKEY_VOTE_KEY is not set, so votes could not be signed.",
            next_step="Set it to the same secret on every bot and worker: openssl rand -hex 32",
        )
    current = (
        settings.vote_key.get_secret_value()
        if settings.vote_key is not None
        else kept_key(settings.home / "vote.key")
    )
    remember_secrets([SecretStr(current)])
    return current.encode(), previous.get_secret_value().encode() if previous else None


def _programs(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    if settings.pg_bin is None:
        return environ
    return {**environ, "TWOKEY_PG_BIN": str(settings.pg_bin)}
