"""Anchors from the clock to the channel and the file, with a Slack and a store beside."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from approvals import anchoring, audit
from approvals.anchor_file import read_file
from approvals.anchors import from_line, read_anchors
from approvals.chain import Head
from approvals.words import BadInputError
from bot.anchoring import AnchorKeeper, AnchorPlace, take_now
from bot.app import assembled
from bot.audit_metrics import AuditMetrics
from bot.doctor_anchors import examine_anchors
from bot.inventory import parse_inventory
from bot.metrics import Metrics
from bot.views.anchor import anchor_message
from jobs.schedules import Scheduler
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.world import CHANNEL, FAST, INVENTORY, OPERATIONS, POLICY, settings
from tests.conftest import Target
from tests.jobs.support import eventually

NIGHT = datetime(2026, 11, 22, 0, 30, tzinfo=UTC)


class Clock:
    def __init__(self, now: datetime = NIGHT) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def place(folder: Path, **more: Any) -> AnchorPlace:
    values = {"channel": CHANNEL, "file": folder / "anchors", "cron": "0 1 * * *", "zone": "UTC"}
    return AnchorPlace(**{**values, **more})


def keeper(
    store: Store, at: AnchorPlace, clock: Clock, meter: AuditMetrics | None = None
) -> AnchorKeeper:
    meter = meter or Metrics().audit
    return AnchorKeeper(store=store, place=at, clock=clock, meter=meter, host="host-a")


async def entries(store: Store, count: int = 3, chain: str = "orders", says: str = "vote") -> None:
    for number in range(count):
        async with store.begin() as conn:
            await audit.append(
                conn, chain=chain, at=NIGHT, actor="ana", action=says, detail={"n": number}
            )


async def rows(store: Store, statement: str) -> list[Any]:
    async with store.begin() as conn:
        return list((await conn.execute(sa.text(statement))).all())


async def test_daily_one_of_many_anchors_and_every_host_keeps_it(
    store: Store, tmp_path: Path
) -> None:
    await entries(store)
    clock = Clock()
    places = [place(tmp_path, file=tmp_path / name) for name in "ab"]
    schedulers = [
        Scheduler(
            store=store, schedules=[at.schedule(clock=clock)], clock=clock, by=f"host-{number}",
            meter=Metrics().audit,
        )
        for number, at in enumerate(places)
    ]  # fmt: skip
    keepers = [keeper(store, at, clock) for at in places]
    for hours in (0, 1, 12, 25):
        clock.now = NIGHT + timedelta(hours=hours)
        await asyncio.gather(*(scheduler.look() for scheduler in schedulers))
        for each in keepers:
            await each.look()
            await each.look()
    posted = await rows(store, "SELECT channel, payload->>'line' FROM outbox WHERE topic='anchor'")
    assert [row[0] for row in posted] == [CHANNEL, CHANNEL]
    first, second = (from_line(row[1]) for row in posted)
    assert second.prev == first.hash
    for name in "ab":
        kept = read_file(tmp_path / name)
        assert kept is not None
        assert (kept.count, kept.problems, kept.newest_at) == (2, [], NIGHT + timedelta(hours=25))
        assert kept.roots == {first.root, second.root}
    audited = await rows(
        store, "SELECT detail->>'root' FROM audit_log WHERE chain='' AND action='anchor'"
    )
    assert [row[0] for row in audited] == [first.root, second.root]
    async with store.begin() as conn:
        report = await audit.check_store(conn, anchors=read_file(tmp_path / "a"))
    assert report.ok


async def test_what_was_anchored_finds_a_rewrite_of_the_whole_store(
    store: Store, tmp_path: Path
) -> None:
    await entries(store)
    clock = Clock()
    await take_now(store, place(tmp_path), by="ola", clock=clock)
    await keeper(store, place(tmp_path), clock).look()
    conn = await asyncpg.connect(store.dsn.get_secret_value())
    await conn.execute("SET session_replication_role = replica")
    await conn.execute("DELETE FROM audit_log WHERE chain = 'orders'")
    await conn.execute("DELETE FROM audit_heads WHERE chain = 'orders'")
    await conn.close()
    await entries(store, 5, says="forged")
    async with store.begin() as inside:
        alone = await audit.check_store(inside)
        anchored = await audit.check_store(inside, anchors=read_file(tmp_path / "anchors"))
    assert alone.ok
    assert [(f.chain, f.seq) for f in anchored.findings] == [("orders", 3)]


async def test_a_file_that_was_edited_is_complained_about_once_per_anchor(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, metrics, at = Clock(), Metrics(), place(tmp_path)
    each = keeper(store, at, clock, metrics.audit)
    await take_now(store, at, by="ola", clock=clock)
    await each.look()
    assert at.file
    at.file.write_text(at.file.read_text().replace('"pages":1', '"pages":2'))
    for _ in range(3):
        clock.now += timedelta(hours=1)
        await take_now(store, at, by="ola", clock=clock)
        await each.look()
        await each.look()
    told = await rows(store, "SELECT payload->>'text' FROM outbox WHERE topic='note'")
    assert len(told) == 3
    assert "not kept on host-a" in told[0][0]
    assert "was not kept" in caplog.text
    assert b'twokey_audit_anchor_file_total{result="failed"} 3.0' in metrics.text()
    assert b'twokey_audit_anchor_file_total{result="appended"} 1.0' in metrics.text()


async def test_an_anchor_that_was_edited_in_the_store_is_not_kept(
    store: Store, tmp_path: Path
) -> None:
    clock, at = Clock(), place(tmp_path)
    await entries(store)
    await take_now(store, at, by="ola", clock=clock)
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "UPDATE firings SET detail = jsonb_set(detail, '{heads,0,seq}', '2')"
                " WHERE detail ? 'heads'"
            )
        )
    each = keeper(store, at, clock)
    await each.look()
    await each.look()
    assert at.file
    assert not at.file.exists()
    assert len(await rows(store, "SELECT 1 FROM outbox WHERE topic='note'")) == 1


async def test_the_message_shows_all_heads_and_the_line_to_copy(store: Store) -> None:
    for number in range(25):
        await entries(store, 1, chain=f"{'long-name-' * 5}{number}")
    async with store.begin() as conn:
        taken = await anchoring.take(conn, at=NIGHT, by="twokey", channel=CHANNEL)
    payloads = await rows(store, "SELECT payload FROM outbox WHERE topic = 'anchor' ORDER BY id")
    lines = []
    for (payload,) in payloads:
        message = anchor_message(payload)
        assert all(
            len(block["text"]["text"]) <= 3000 for block in message.blocks if "text" in block
        )
        copied = "\n".join(json.dumps(block, ensure_ascii=False) for block in message.blocks)
        assert "…" not in copied
        texts = [block["text"]["text"] for block in message.blocks if "text" in block]
        lines += "\n".join(texts).splitlines()
    found = read_anchors(lines, name="copy")
    assert (found.problems, len(found.notes), len(payloads)) == ([], 1, 3)
    assert {Head(chain=c, seq=s, hash=h) for c, k in found.heads.items() for s, h in k.items()} == (
        set(taken.heads)
    )


async def test_a_running_bot_posts_the_anchor_and_keeps_its_file(
    slack: SlackStandIn, store: Store, tmp_path: Path, target: Target
) -> None:
    (tmp_path / "policy.yml").write_text(POLICY)
    text = f"{INVENTORY % target.dsn}\nanchors: {{channel: {CHANNEL}, file: anchors}}\n"
    inventory = parse_inventory(text, path=tmp_path / "twokey.yml", environ={})
    assert inventory.anchors
    await entries(store)
    await take_now(store, inventory.anchors, by="ola", clock=lambda: datetime.now(UTC))
    async with assembled(
        settings(slack, store, tmp_path, http=False), inventory, store=store,
        operations=OPERATIONS, pace=FAST,
    ) as twokey:  # fmt: skip
        stop = asyncio.Event()
        task = asyncio.create_task(twokey.run(stop, worker=False))

        def posted() -> str | None:
            return next((m["text"] for m in slack.messages(CHANNEL) if "anchor" in m["text"]), None)

        written = tmp_path / "anchors"
        said = await slack.wait_for(posted, seconds=30)

        async def is_written() -> bool:
            return written.exists()  # Slack is not told of it, so `slack.wait_for` would miss it

        await eventually(is_written, seconds=30)

        async def begun() -> int:
            return len(await rows(store, "SELECT 1 FROM firings WHERE detail->>'state' = 'fired'"))

        assert await begun() == 1
        stop.set()
        async with asyncio.timeout(30):
            await task
    assert re.search(r"1 chain, combined hash [0-9a-f]{64}", str(said))
    [message] = [m for m in slack.messages(CHANNEL) if "anchor" in m["text"]]
    copied = [
        line
        for block in message["blocks"]
        if isinstance(block.get("text"), dict)
        for line in block["text"]["text"].splitlines()
    ]
    kept = read_file(tmp_path / "anchors")
    assert kept is not None
    assert read_anchors(copied, name="copy").heads == kept.heads == {"orders": kept.heads["orders"]}


@pytest.mark.parametrize(
    "anchors",
    ["{}", "{schedule: '0 1 * *', file: x}", "{channel: '#dba'}", "{file: x, zone: Mars}"],
)
def test_an_inventory_that_cannot_be_meant_is_refused(tmp_path: Path, anchors: str) -> None:
    text = f"{INVENTORY % 'postgresql://db1/orders'}\nanchors: {anchors}\n"
    with pytest.raises(BadInputError):
        parse_inventory(text, path=tmp_path / "twokey.yml", environ={})


async def test_the_doctor_says_how_old_the_newest_is_and_how_to_set_the_attribute(
    store: Store, tmp_path: Path
) -> None:
    clock, at = Clock(), place(tmp_path)

    def said(hours: int = 0) -> list[tuple[bool, str, str]]:
        now = clock.now + timedelta(hours=hours)
        return [(f.ok, f.says, f.fix) for f in examine_anchors(at, now=now, is_needed=True)]

    assert said()[0][2] == "Take one now: twokey audit anchor"
    await take_now(store, at, by="ola", clock=clock)
    await keeper(store, at, clock).look()
    assert said()[0][0]
    assert said(26)[0][0]
    assert not said(27)[0][0]
    assert "27 hours ago" in said(27)[0][1]
    attribute = said()[1]
    assert attribute[0] or attribute[2] == f"As root: chattr +a {at.file}"
    assert at.file
    at.file.write_text("nonsense")
    assert not said()[0][0]


def test_the_doctor_wants_anchors_where_people_rely_on_the_store() -> None:
    for is_needed in (True, False):
        [finding] = examine_anchors(None, now=NIGHT, is_needed=is_needed)
        assert finding.ok is not is_needed
