"""A table that changes while an application writes to it, for the tests of `/db change`."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from commands.change import Params, plan, run
from jobs.migration_settings import BackfillSettings, MigrationSettings
from jobs.operation import Answer, Mode
from postgres.server import Server
from store.connect import Store
from store.tables import requests
from tests.commands.conftest import DirectJob, JobMaker, connected
from tests.store.test_store import REQUEST

_numbers = itertools.count(1)
ROWS = 600
QUICK = BackfillSettings(rows=200, batch=timedelta(milliseconds=200), dead_max=0, slower_max=0)
TABLES = """
    CREATE SCHEMA {0};
    CREATE TABLE {0}."User" (id int PRIMARY KEY, name text, email varchar(255) NOT NULL
                             DEFAULT 'nobody', CONSTRAINT mail CHECK (email <> ''));
    CREATE INDEX "User_email_idx" ON {0}."User" (email);
    CREATE UNIQUE INDEX "User_email_key" ON {0}."User" (lower(email), id);
    INSERT INTO {0}."User" SELECT i, 'Ada' || i || ' Nr', i || '@acme.example'
      FROM generate_series(1, {1}) i;
    GRANT USAGE ON SCHEMA {0} TO looker;
    GRANT SELECT, INSERT, UPDATE ON {0}."User" TO looker;
    ANALYZE {0}."User";
"""
NAMES = """
    version: 1
    kind: expand_contract
    table: {0}.User
    why: Letters begin with the first name.
    expand:
      - ALTER TABLE {0}."User" ADD COLUMN "firstName" text, ADD COLUMN "lastName" text
    sync:
      set: {{firstName: "SPLIT_PART(name, ' ', 1)", lastName: "SPLIT_PART(name, ' ', 2)"}}
      reverse: {{name: "CONCAT(\\"firstName\\", ' ', \\"lastName\\")"}}
    validate:
      not_null: [firstName]
      constraints: {{short: 'CHECK (length("firstName") < 100)'}}
      indexes: ['CREATE INDEX "User_lastName_idx" ON {0}."User" ("lastName")']
      checks: ['SELECT count(*) = 0 FROM {0}."User" WHERE "firstName" IS NULL']
    contract: {{drop: [name]}}
"""
EMAIL = """
    version: 1
    kind: shadow_column
    table: {0}.User
    column: email
    shadow: email_new
    type: text
    down: CASE WHEN length(email) <= 255 THEN email END
"""


class Killed(BaseException):
    """The worker is gone: nothing of ours runs any more."""


@dataclass(slots=True)
class Attempt:
    """An attempt whose checkpoint the next life finds."""

    life: LivingJob
    name: str
    number: int = 1

    @property
    def checkpoint(self) -> JsonValue:
        return self.life.saved.get(self.name)

    async def save(self, checkpoint: JsonValue) -> None:
        self.life.saved[self.name] = checkpoint


@dataclass(kw_only=True)
class LivingJob(DirectJob):
    """A run with several lives: a step that is done is not done again, as the runner has it.

    `die_after`: a step of which nobody hears any more how it went, though it was done.
    """

    done: dict[str, JsonValue] = field(default_factory=dict)
    saved: dict[str, JsonValue] = field(default_factory=dict)
    die_after: str = ""

    async def step(
        self,
        name: str,
        body: Callable[[Any], Awaitable[JsonValue]],
        *,
        mode: Mode,
        time_limit: timedelta,
        attempts: int = 1,
    ) -> JsonValue:
        if name in self.done:
            return self.done[name]
        self.steps.append((name, mode))
        result = await body(Attempt(self, name))
        if self.die_after and self.die_after in name:
            self.die_after = ""
            raise Killed(name)
        # As the store would give it back.
        self.done[name] = json.loads(json.dumps(result))
        return self.done[name]


@dataclass(kw_only=True)
class World:
    """A schema of the test's own, and a folder of changes of it."""

    job: LivingJob
    server: Server
    store: Store
    schema: str
    folder: Path

    @property
    def names(self) -> str:
        """What the change of names is called here: the target's marks are for all tests."""
        return f"names_{self.schema}"

    @property
    def email(self) -> str:
        """What the change of the column's type is called here."""
        return f"email_{self.schema}"

    @property
    def table(self) -> str:
        return f'{self.schema}."User"'

    def declare(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.yml"
        path.write_text(textwrap.dedent(text.format(self.schema)))
        return path

    async def remove(self) -> None:
        """Leave the cluster, which is for all tests, as it was."""
        await self.sql(f"DROP SCHEMA {self.schema} CASCADE")

    async def sql(self, text: str, *args: Any) -> list[Any]:
        async with connected(self.server) as conn:
            return list(await conn.fetch(text, *args))

    async def value(self, text: str, *args: Any) -> Any:
        return (await self.sql(text, *args))[0][0]

    async def columns(self) -> list[str]:
        rows = await self.sql(
            "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0"
            " AND NOT attisdropped ORDER BY attname",
            self.table,
        )
        return [row[0] for row in rows]

    async def another_run(self) -> LivingJob:
        """A run of a request of its own."""
        async with self.store.begin() as conn:
            asked = await conn.execute(
                requests.insert().values(**{**REQUEST, "detail": {}}).returning(requests.c.id)
            )
            number = int(asked.scalar_one())
        return replace(
            self.job,
            request_id=number,
            run_key=f"run-{number}",
            said=[],
            steps=[],
            done={},
            saved={},
        )

    async def phase(self, change: str, phase: str) -> Answer:
        """A whole phase, as one request."""
        job = await self.another_run()
        params = Params(database="shop", change=change, phase=phase)  # type: ignore[arg-type]
        return await run(job, params, await plan(job, params))

    async def killed_in(self, change: str, phase: str) -> int:
        """A whole phase whose worker dies after each of its steps; how often it died."""
        job = await self.another_run()
        params = Params(database="shop", change=change, phase=phase)  # type: ignore[arg-type]
        made = await plan(job, params)
        deaths = 0
        for step in ("look", "prepare", *(f"{number}. " for number in range(1, 30)), "record"):
            if "record" in job.done:
                break
            job.die_after = step
            try:
                await run(job, params, made)
            except Killed:
                deaths += 1
        assert "record" in job.done
        return deaths

    async def phases(self, change: str, *names: str) -> None:
        for name in names:
            await self.phase(change, name)


async def make_world(job: JobMaker, shop: Server, store: Store, folder: Path) -> World:
    schema = f"change_{next(_numbers)}"
    async with connected(shop) as conn:
        await conn.execute(TABLES.format(schema, ROWS))
    plain = job()
    made = LivingJob(**{each.name: getattr(plain, each.name) for each in fields(plain)})
    changes = folder / "changes"
    changes.mkdir()
    settings = MigrationSettings(changes=changes, backfill=QUICK)
    made.database = replace(made.database, migrations=settings)
    return World(job=made, server=shop, store=store, schema=schema, folder=changes)


Write = Callable[[Any, int, int], Awaitable[dict[int, Any]]]


@dataclass(kw_only=True)
class Writer:
    """An application that never stops: what it wrote, and what went wrong for it."""

    write: Write
    wrote: dict[int, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    done: int = 0


@asynccontextmanager
async def writing(world: World, *writers: Writer, at_least: int = 15) -> AsyncIterator[None]:
    """Each writer works until the block ends and it has done `at_least` writes meanwhile."""
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(_write(world, writer, place, len(writers), stop, at_least))
        for place, writer in enumerate(writers)
    ]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _write(
    world: World, writer: Writer, place: int, places: int, stop: asyncio.Event, at_least: int
) -> None:
    """Its own ids alone, so that what it wrote last is what must be there."""
    chance, goal = random.Random(place + writer.done), writer.done + at_least  # noqa: S311
    async with connected(world.server) as conn:
        while not stop.is_set() or writer.done < goal:
            number = chance.randrange(1, 2 * ROWS) * places + place
            writer.done += 1
            try:
                writer.wrote |= await writer.write(conn, number, writer.done)
            except Exception as error:  # noqa: BLE001 - whatever an application would see
                writer.errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.002)
