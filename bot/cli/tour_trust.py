"""The tour's second act: what a security team would try, and what they would want to see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from approvals.counting import count_text
from approvals.words import RequestId
from bot.cli.tour_play import (
    ANA,
    BEN,
    CLEO,
    DORA,
    OLE,
    RUN_SECONDS_MAX,
    Tour,
    TourError,
    command_line,
    expect,
    quoted,
)
from jobs.engine import PgQueue

_FOLLOW_SECONDS_MAX: Final = 15

FORGE: Final = sa.text("""
    UPDATE requests SET state = 'approved', approved_at = now(), version = version + 1
     WHERE id = :id
""")


async def _forgery(tour: Tour) -> list[str]:
    expect(await tour.ask(ANA, "/db backup orders"), "#5")
    await tour.card(5, says="Waiting")
    store = tour.world.store
    async with store.begin() as conn:
        await conn.execute(FORGE, {"id": 5})
        await PgQueue(store).enqueue(
            conn, request_id=RequestId(5), database="orders", operation="backup",
            now=datetime.now(UTC),
        )  # fmt: skip
    card = await tour.card(5, says="Refused")
    said = expect(json.dumps(card, ensure_ascii=False), "is not what people agreed to")
    del said
    return ["the card says: what is stored of request 5 is not what people agreed to"]


async def _terminal(tour: Tour) -> list[str]:
    asked, said = await _twokey(tour, await _token(tour, ANA), "request", "backup", "orders")
    if asked != 0:
        raise TourError(f"twokey request: {said}")
    await tour.card(6, says="Waiting")
    own = await _approve(tour, ANA, 6)
    if own[0] != 1:
        raise TourError(f"Her own approval was not refused: {own}")
    counted = await _approve(tour, BEN, 6)
    if counted[0] != 0:
        raise TourError(f"Ben's approval was not taken: {counted}")
    await tour.card(6, says="1 of 2")
    return [
        *quoted("twokey request backup orders", said)[:3],
        *quoted("twokey approve 6, as Ana, after the plan", _end(expect(own[1], "your own"))),
        *quoted("twokey approve 6, as Ben, after the plan", _end(counted[1])),
    ]


async def _delegation(tour: Tour) -> list[str]:
    refused = expect(await tour.press(OLE, 6, "approve"), "not yours")
    given = expect(
        await tour.ask(CLEO, f"/db delegate <@{OLE}> until tomorrow"), "may vote in your place"
    )
    taken = await tour.press(OLE, 6, "approve")
    done = await tour.thread(6, "is complete")
    await tour.card(6, says="Done", seconds=RUN_SECONDS_MAX)
    return [
        *quoted("Ole, who is no DBA, is told", refused),
        *quoted("Cleo is told", given),
        *quoted("then Ole is told", taken),
        *quoted("the thread says", done)[:1],
    ]


async def _policy(tour: Tour) -> list[str]:
    file = tour.world.inventory.policy
    text = file.read_text(encoding="utf-8")
    # The rule for production backups asks for two; now for one.
    head, rule, rest = text.partition("- name: production backups and restore tests")
    file.write_text(head + rule + rest.replace("approve: 2", "approve: 1", 1), encoding="utf-8")
    expect(await tour.ask(ANA, "/db policy-change"), "#7")
    await tour.card(7, says="Waiting")
    unread = expect(await tour.press(BEN, 7, "approve"), "page")
    pages = await tour.read(BEN, 7)
    await tour.press(BEN, 7, "approve")
    await tour.read(DORA, 7)
    await tour.press(DORA, 7, "approve")
    await tour.card(7, says="Done", seconds=RUN_SECONDS_MAX)
    now = await _asked_until(tour, "/db policy backup orders", "1 of dba")
    return [
        *quoted("Ben is told", unread),
        f"he opens {count_text(pages, 'page')}, then approves; Dora of security does too",
        *quoted("Ana is told", now)[:3],
    ]


async def _anchors(tour: Tour) -> list[str]:
    folder = tour.world.settings.home
    export, anchors = folder / "audit.jsonl", folder / "anchors.jsonl"
    environ = _operator(tour)
    for words in (["audit", "anchor"], ["audit", "export", "--out", str(export)]):
        code, said = await command_line(*words, environ=environ)
        if code != 0:
            raise TourError(f"twokey {' '.join(words)}: {said}")
    whole = await _checked(export, anchors, ok=True)
    cut = _copy(export, folder / "cut.jsonl", lambda lines: lines[:-3])
    found = await _checked(cut, anchors, ok=False)
    return [*quoted("offline, with the anchors", whole)[:2], *quoted("with its end cut off", found)]


async def _evidence(tour: Tour) -> list[str]:
    pack = tour.world.settings.home / "evidence.zip"
    now = datetime.now(UTC)
    since, until = (
        f"{at:%Y-%m-%dT%H:%M:%S}" for at in (now - timedelta(days=1), now - timedelta(seconds=1))
    )
    words = ["audit", "evidence", "--since", since, "--until", until, "--out", str(pack)]
    code, said = await command_line(*words, environ=_operator(tour))
    if code != 0:
        raise TourError(f"twokey audit evidence: {said}")
    code, checked = await command_line("audit", "evidence", "--verify", str(pack), environ={})
    if code != 0:
        raise TourError(f"The pack does not verify: {checked}")
    return [*quoted("the pack", said), *quoted("checked offline", checked)]


TRUST: Final[Sequence[tuple[str, Callable[[Tour], Awaitable[Sequence[str]]]]]] = (
    ("Somebody writes `approved` into the store and queues a run: no worker begins it.", _forgery),
    ("The same from a terminal, with tokens from Slack: Ana asks, may not approve; Ben does.",
     _terminal),
    ("Cleo is away until tomorrow: Ole, who may not approve, sits in her seat.", _delegation),
    ("A weaker policy is a request under the present one, and every page must be read.", _policy),
    ("The audit is anchored, exported and checked offline; a cut tail is found.", _anchors),
    ("The evidence of the day as one archive, checked without anything of ours.", _evidence),
)  # fmt: skip


async def _asked_until(tour: Tour, text: str, part: str) -> str:
    """What Ana is told, once it has `part` in it: bots follow a new policy within seconds."""
    told = await tour.ask(ANA, text)
    for _ in range(_FOLLOW_SECONDS_MAX):
        if part in told:
            break
        await asyncio.sleep(1)
        told = await tour.ask(ANA, text)
    return expect(told, part)


def _end(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-2:])


async def _token(tour: Tour, user: str) -> str:
    told = await tour.ask(user, "/db token")
    found = [word for word in told.replace("`", " ").split() if word.startswith("twk_")]
    if not found:
        raise TourError(f"There is no token in: {told}")
    return found[0]


async def _twokey(tour: Tour, token: str, *words: str) -> tuple[int, str]:
    environ = {"TWOKEY_URL": tour.world.url, "TWOKEY_TOKEN": token}
    return await command_line(*words, environ=environ)


async def _approve(tour: Tour, user: str, request: int) -> tuple[int, str]:
    token = await _token(tour, user)
    _, shown = await _twokey(tour, token, "show", str(request), "--json")
    plan_hash = json.loads(shown)["plan_hash"]
    return await _twokey(tour, token, "approve", str(request), "--yes", "--plan-hash", plan_hash)


def _operator(tour: Tour) -> dict[str, str]:
    settings = tour.world.settings
    return {"TWOKEY_CONFIG": str(settings.config), "TWOKEY_HOME": str(settings.home)}


async def _checked(export: Path, anchors: Path, *, ok: bool) -> str:
    words = ["audit", "verify", str(export), "--anchors", str(anchors)]
    code, said = await command_line(*words, environ={})
    if code != (0 if ok else 1):
        raise TourError(f"twokey {' '.join(words)}: {said}")
    return said


def _copy(file: Path, to: Path, change: Callable[[list[str]], list[str]]) -> Path:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    to.write_text("".join(change(lines)), encoding="utf-8")
    return to
