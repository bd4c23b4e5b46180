"""Alerts from the store to the channel: each told once when it begins and once when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.alerting import Watch
from bot.inventory import Inventory
from bot.outbox import Outbox
from jobs.alert_engine import Decision
from jobs.health_settings import MonitoringSettings
from sandbox.slack.server import SlackStandIn
from store.backups import record_backup
from store.connect import Store
from store.incidents import IncidentRow, ack_incident, open_incidents
from tests.bot.clock_world import SATURDAY, Clock, ClockWorld, clock_world, inventory
from tests.bot.test_scheduled import a_backup
from tests.bot.world import CHANNEL

DAY = timedelta(days=1)
HAND = "{archive: {method: none}, weekly: false, monthly: false, verify: false, prune: false}"


class Looker:
    """A watch on one store, with a clock that a test moves."""

    def __init__(self, store: Store, inventory: Inventory) -> None:
        self.store, self.clock = store, Clock()
        self.watch = Watch(inventory=inventory, store=store, clock=self.clock)

    async def rows(self, query: str) -> list[Any]:
        async with self.store.begin() as conn:
            return list((await conn.execute(sa.text(query))).all())

    async def told(self, kind: str = "note") -> list[str]:
        """The marks and texts of what stands in threads, in its order."""
        query = (
            "SELECT concat_ws(' ', payload ->> 'mark', payload ->> 'text') FROM outbox"
            f" WHERE topic = 'incident' AND payload ->> 'kind' = '{kind}' ORDER BY id"
        )
        return [row[0] for row in await self.rows(query)]

    async def looks(self, *, after: timedelta = timedelta(seconds=30)) -> tuple[Decision, ...]:
        """Look again when so much time has passed."""
        self.clock.now += after
        decided = await self.watch.look()
        assert decided is not None
        return decided

    async def stands(self, database: str = "orders") -> IncidentRow | None:
        """The open incident of a database."""
        async with self.store.begin() as conn:
            return next(iter(await open_incidents(conn, database)), None)


def monitored(looker: Looker, **settings: Any) -> Inventory:
    """The inventory with other words on how `orders` is monitored."""
    known = looker.watch.inventory
    orders = replace(known.databases["orders"], monitoring=MonitoringSettings(**settings))
    return replace(known, databases={"orders": orders})


@pytest.fixture
async def looker(store: Store, tmp_path: Path) -> Looker:
    made = Looker(store, inventory(tmp_path, HAND, grant=True))
    made.watch = replace(made.watch, inventory=monitored(made, is_on=False))
    async with store.begin() as conn:
        await conn.execute(
            sa.text("INSERT INTO firings VALUES ('backup-daily orders', :at, :at, 'a', :detail)")
            .bindparams(sa.bindparam("detail", type_=sa.JSON)),
            {"at": SATURDAY, "detail": {"state": "begun"}},
        )  # fmt: skip
    return made


async def a_good_backup(looker: Looker) -> None:
    async with looker.store.begin() as conn:
        await record_backup(conn, a_backup("orders-1", looker.clock.now))


async def test_an_alert_is_told_once_by_any_number_of_bots_and_once_when_over(
    looker: Looker,
) -> None:
    looker.clock.now += 2 * DAY
    await asyncio.gather(*(looker.watch.look() for _ in range(4)))
    (told,) = await looker.told()
    assert told.startswith("alarm critical: BackupMissing. There is no daily backup since")
    assert await looker.rows("SELECT payload FROM outbox WHERE payload ->> 'kind' = 'card'") == [
        ({"incident": 1, "kind": "card"},)
    ]
    for _ in range(3):
        await looker.looks()
    assert len(await looker.rows("SELECT id FROM outbox WHERE topic = 'incident'")) == 2
    await a_good_backup(looker)
    await looker.looks()
    assert len(await looker.told()) == 1  # it may come back within a minute
    looker.clock.now += timedelta(minutes=1)
    await asyncio.gather(*(looker.watch.look() for _ in range(4)))
    assert (await looker.told())[1:] == ["done Over: BackupMissing, told 3 min ago."]
    assert await looker.rows("SELECT state FROM alerts") == [("resolved",)]
    assert await looker.rows("SELECT state, severity, version FROM incidents") == [
        ("closed", "critical", 2)
    ]


async def test_only_one_looks_at_a_time(looker: Looker) -> None:
    looker.clock.now += 2 * DAY
    async with looker.store.begin() as conn:
        held = "SELECT pg_advisory_xact_lock(hashtext('twokey'), hashtext('alerts'))"
        await conn.execute(sa.text(held))
        assert await looker.watch.look() is None
    assert await looker.told() == []
    assert await looker.watch.look() is not None


async def test_whoever_would_store_it_twice_finds_it_there(looker: Looker) -> None:
    """The index holds what the lock promises: two alerts of a name never fire together."""
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    alert = "'orders', 'BackupMissing', 'warning', 'firing', '', '', now(), now(), '{}'"
    with pytest.raises(sa.exc.IntegrityError, match="alerts_firing"):
        await looker.rows(
            "INSERT INTO alerts (database, name, severity, state, problem, next_step, fired_at,"
            f" seen_at, detail) VALUES ({alert}) RETURNING id"
        )


async def test_a_warning_that_gets_critical_is_told_again_and_is_acknowledged_no_more(
    looker: Looker,
) -> None:
    await a_good_backup(looker)
    await looker.looks(after=timedelta(hours=31))
    async with looker.store.begin() as conn:
        acked = await ack_incident(conn, 1, "ana@acme.example", looker.clock.now)
    assert acked.is_done
    await looker.looks(after=timedelta(hours=24))
    assert len(await looker.told()) == 1
    await looker.looks(after=timedelta(hours=7))
    await looker.looks()
    assert [text.partition(".")[0] for text in await looker.told()] == [
        "warning warning: BackupMissing",
        "alarm BackupMissing is critical now",
    ]
    incident = await looker.stands()
    assert incident is not None
    assert (incident.severity, incident.firing[0].acked_by) == ("critical", "")


async def test_a_bot_that_starts_anew_repeats_nothing_and_forgets_nothing(looker: Looker) -> None:
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    async with looker.store.begin() as conn:
        await ack_incident(conn, 1, "ana@acme.example", looker.clock.now)
    for hours in (1, 1, 10):
        looker.watch = replace(looker.watch)
        await looker.looks(after=timedelta(hours=hours))
    assert len(await looker.told()) == 1
    assert await looker.told("escalation") == []
    # Also when what it remembered is lost, or is of a version that nobody can read.
    for lost in ("DELETE FROM alert_states", """UPDATE alert_states SET memory = '{"phase": 7}'"""):
        await looker.rows(f"{lost} RETURNING name")
        await looker.looks()
    assert len(await looker.told()) == 1


async def test_nobody_acknowledges_it_so_it_is_repeated_and_escalates(looker: Looker) -> None:
    looker.watch = replace(
        looker.watch, inventory=monitored(looker, is_on=False, escalate_to="C0BOSS")
    )
    await looker.looks(after=2 * DAY)
    for _ in range(10):
        await looker.looks(after=timedelta(minutes=31))
    assert [text.partition(" after")[0] for text in (await looker.told())[1:]] == [
        "alarm Nobody has acknowledged BackupMissing for 1 h 2 min.",
        "alarm Still critical",
    ]
    assert await looker.rows(
        "SELECT channel, payload ->> 'text' FROM outbox WHERE payload ->> 'kind' = 'escalation'"
    ) == [("C0BOSS", "Nobody has acknowledged BackupMissing for 1 h 2 min.")]


async def test_the_alert_of_a_database_that_left_the_inventory_ends_in_silence(
    looker: Looker,
) -> None:
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    emptied = replace(looker.watch.inventory, databases={})
    looker.watch = replace(looker.watch, inventory=emptied)
    await looker.looks(after=timedelta(minutes=2))
    assert await looker.rows("SELECT state FROM alerts") == [("resolved",)]
    assert await looker.rows("SELECT state FROM incidents") == [("closed",)]
    assert await looker.rows("SELECT name FROM alert_states") == []
    assert len(await looker.told()) == 1
    assert len(await looker.told("card")) == 2  # its message does not go on saying that it fires


async def test_old_alerts_incidents_and_silences_are_forgotten(looker: Looker) -> None:
    ages = "FROM unnest(ARRAY[interval '10 years', interval '1 day']) WITH ORDINALITY AS a (d, n)"
    await looker.rows(
        "INSERT INTO incidents (id, source, key, database, channel, severity, state, opened_at,"
        " changed_at, closed_at, detail) SELECT 100 + n, 'twokey', 'x', 'orders', 'C', 'warning',"
        f" 'closed', now() - d, now() - d, now() - d, '{{}}' {ages} RETURNING id"
    )
    await looker.rows(
        "INSERT INTO places SELECT 'incident', id::text, 'C', '1.0' FROM incidents RETURNING key"
    )
    await looker.rows(
        "INSERT INTO alerts (database, name, severity, state, problem, next_step, fired_at,"
        " seen_at, resolved_at, incident_id, detail) SELECT 'orders', 'A', 'warning', 'resolved',"
        f" '', '', now() - d, now() - d, now() - d, 100 + n, '{{}}' {ages} RETURNING id"
    )
    await looker.rows(
        "INSERT INTO silences (database, name, source, reason, by, by_slack, starts_at, ends_at)"
        f" SELECT 'orders', '', 'person', '', '', '', now() - d, now() - d {ages} RETURNING id"
    )
    await looker.watch.look()
    assert len(await looker.rows("SELECT id FROM alerts WHERE name = 'A'")) == 1
    assert await looker.rows("SELECT id FROM incidents") == [(102,)]
    assert await looker.rows("SELECT key FROM places") == [("102",)]
    assert len(await looker.rows("SELECT id FROM silences")) == 1


async def test_the_numbers_of_what_fires_are_measured(
    slack: SlackStandIn, store: Store, tmp_path: Path, looker: Looker
) -> None:
    looker.clock.now += 2 * DAY
    await looker.watch.look()
    async with clock_world(slack, store, tmp_path) as world:
        metrics = world.twokey.metrics
        await metrics.read(store)
        assert b'twokey_alerts{severity="critical"} 1.0' in metrics.text()
        assert b'twokey_alerts{severity="warning"} 0.0' in metrics.text()


@pytest.fixture
async def world(slack: SlackStandIn, store: Store, tmp_path: Path) -> AsyncIterator[ClockWorld]:
    async with clock_world(slack, store, tmp_path) as made:
        yield made


async def test_the_channel_reads_what_is_wrong_and_what_to_do(
    world: ClockWorld, slack: SlackStandIn
) -> None:
    world.clock.now += timedelta(days=40)
    stop = asyncio.Event()
    watch = Watch(
        inventory=world.desk.inventory, store=world.desk.store, clock=world.clock,
        poll=timedelta(milliseconds=50),
    )  # fmt: skip
    outbox: Outbox = world.twokey.outbox
    tasks = [asyncio.create_task(each.run(stop)) for each in (watch, outbox)]

    def told() -> str | None:
        texts = [message["text"] for message in slack.messages(CHANNEL)]
        return next((text for text in texts if "BackupMissing" in text), None)

    text = await slack.wait_for(told, seconds=30)
    stop.set()
    await asyncio.gather(*tasks)
    assert text is not None
    assert text.startswith("🚨")
    assert "There is no daily backup since 40 d" in text
