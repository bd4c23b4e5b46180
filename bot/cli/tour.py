"""The tour: the whole story played through Slack, each step checked, and told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from approvals import audit
from approvals.audit import Entry, Head
from bot.cli.tour_failover import FAILOVER
from bot.cli.tour_health import HEALTH
from bot.cli.tour_migrations import MIGRATIONS
from bot.cli.tour_play import (
    ANA,
    BEN,
    CLEO,
    EVE,
    GUS,
    RUN_SECONDS_MAX,
    Json,
    Say,
    Tour,
    TourError,
    expect,
    quoted,
    text_of,
)
from bot.cli.tour_recovery import RECOVERY
from bot.cli.tour_trust import TRUST
from bot.cli.world import World

ANAS_OTHER_ACCOUNT: Final = "U0ANA2"


async def play(world: World, say: Say) -> int:
    """Play the story; 0 when each step did what it should, else 1."""
    tour = Tour(world=world, say=say)
    started = time.monotonic()
    for told, step in story(world):
        tour.steps += 1
        began = time.monotonic()
        say(f"\n{tour.steps:2}. {told}")
        try:
            for line in await step(tour):
                say(f"      {line}")
        except (TourError, TimeoutError) as problem:
            say(f"    ✗ {problem}")
            return 1
        say(f"    ✓ {time.monotonic() - began:.1f} s")
    say(f"\nAll {tour.steps} steps did what they should, in {time.monotonic() - started:.0f} s.")
    return 0


async def _ask_backup(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db backup orders"), "#1")
    card = await tour.card(1, says="Waiting")
    expect(text_of(card), "Back up orders")
    return quoted("Ana is told", told)


async def _self_approval(tour: Tour) -> list[str]:
    told = expect(await tour.press(ANA, 1, "approve"), "your own")
    other = expect(await tour.press(ANAS_OTHER_ACCOUNT, 1, "approve"), "your own")
    await tour.card(1, says="Waiting")
    return [*quoted("Ana is told", told), *quoted("her second account", other)]


async def _strangers(tour: Tour) -> list[str]:
    lines: list[str] = []
    for user, name in ((GUS, "the guest Gus"), (EVE, "Eve of another company")):
        lines += quoted(f"{name} is told", await tour.press(user, 1, "approve"))
    await tour.card(1, says="Waiting")
    return lines


async def _approve_backup(tour: Tour) -> list[str]:
    first = await tour.press(BEN, 1, "approve")
    await tour.card(1, says="1 of 2")
    second = await tour.press(CLEO, 1, "approve")
    return [*quoted("Ben is told", first), *quoted("Cleo is told", second)]


async def _backup_runs(tour: Tour) -> list[str]:
    said = await tour.thread(1, "is complete")
    await tour.card(1, says="Done", seconds=RUN_SECONDS_MAX)
    return quoted("the thread says", said)


async def _verify(tour: Tour) -> list[str]:
    expect(await tour.ask(ANA, "/db verify orders"), "#2")
    await tour.card(2)
    await tour.press(BEN, 2, "approve")
    await tour.press(CLEO, 2, "approve")
    said = await tour.thread(2, "is proven")
    await tour.card(2, says="Done", seconds=RUN_SECONDS_MAX)
    return quoted("the thread says", said)


async def _backups(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db backups orders"), "ago")
    return quoted("Ana is told", told)


async def _deny(tour: Tour) -> list[str]:
    expect(await tour.ask(ANA, "/db backup orders"), "#3")
    await tour.card(3)
    await tour.press(CLEO, 3, "deny")
    slack = tour.world.slack
    view = slack.views(CLEO)[-1]
    empty = await slack.submit(CLEO, view["id"], {})
    if not empty.errors:
        raise TourError("An empty reason was taken.")
    block, element = _input_of(view)
    filled = {block: {element: {"type": "plain_text_input", "value": "There is one already."}}}
    done = await slack.submit(CLEO, view["id"], filled)
    if not done.ok:
        raise TourError(f"The reason was not taken: {done.error or done.errors}")
    card = await tour.card(3, says="Denied")
    expect(text_of(card), "There is one already.")
    return [f"without a reason: {next(iter(empty.errors.values()))}", "with one: denied"]


async def _restart(tour: Tour) -> list[str]:
    expect(await tour.ask(ANA, "/db verify orders"), "#4")
    await tour.card(4, says="Waiting")
    await tour.world.restart()
    await tour.press(BEN, 4, "approve")
    await tour.card(4, says="1 of 2")
    return ["Twokey was ended and started again; Ben's click on the old card counts"]


async def _damage(tour: Tour) -> list[str]:
    folder = tour.world.inventory.databases["orders"].backup_folder
    (archive,) = sorted(folder.glob("orders-*/base.tar*"))
    _flip_byte(archive)
    await tour.press(CLEO, 4, "approve")
    said = await tour.thread(4, "is damaged")
    await tour.card(4, says="Failed", seconds=RUN_SECONDS_MAX)
    told = expect(await tour.ask(ANA, "/db backups orders"), "DAMAGED")
    return [*quoted("the thread says", said), *quoted("Ana is told", told)[:4]]


async def _audit(tour: Tour) -> list[str]:
    entries, heads = await _chain(tour.world)
    if findings := audit.verify(entries, heads):
        raise TourError(f"The audit is not in order: {findings}")
    edited = [*entries]
    edited[3] = replace(edited[3], actor="somebody.else@acme.example")
    found = [
        ("one entry edited", audit.verify(edited, heads)),
        ("one entry removed", audit.verify([*entries[:4], *entries[5:]], heads)),
        ("the end cut off", audit.verify(entries[:-2], heads)),
    ]
    if missed := [what for what, findings in found if not findings]:
        raise TourError(f"Not found: {missed}")
    lines = [f"{len(entries)} entries, all in order; in copies of it:"]
    return lines + [f"{what}: entry {f[0].seq}: {f[0].problem}" for what, f in found]


Step = tuple[str, Callable[[Tour], Awaitable[Sequence[str]]]]
STORY: Final[Sequence[Step]] = (
    ("Ana asks in #db-ops for a backup of orders; the card appears in #orders.", _ask_backup),
    ("She tries to approve it herself, also with a second account: refused.", _self_approval),
    ("A guest and somebody of another company, both in the group, try: refused.", _strangers),
    ("Ben and Cleo, the DBAs, approve. The second vote decides.", _approve_backup),
    ("A worker takes the backup with pg_basebackup.", _backup_runs),
    ("Ana asks to verify it; it is restored into a scratch server and checked.", _verify),
    ("What backups are there?", _backups),
    ("Ana asks for another one; Cleo denies it, and has to say why.", _deny),
    ("Twokey is restarted between a card and a click on it.", _restart),
    ("One byte of the backup flips on disk; the verification finds it.", _damage),
    ("The audit: the chain is whole, and an edit, a removal and a cut are found.", _audit),
    *TRUST,
    *RECOVERY,
    *HEALTH,
    *MIGRATIONS,
)


def story(world: World) -> Sequence[Step]:
    """What is played in this world: the last act needs a database with two servers."""
    return (*STORY, *FAILOVER) if world.payments else STORY


async def _chain(world: World) -> tuple[list[Entry], list[Head]]:
    async with world.store.begin() as conn:
        entries = [entry async for entry in audit.read(conn, chain="orders")]
        return entries, await audit.heads(conn, chain="orders")


def _flip_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def _input_of(view: Json) -> tuple[str, str]:
    block = next(block for block in view["blocks"] if block["type"] == "input")
    return block["block_id"], block["element"]["action_id"]
