"""The whole story with a canary for every secret: afterwards none is found anywhere."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from store.redact import MARK as REDACTED
from tests.scenarios.canaries import (
    PASSWORDS,
    TYPED,
    TYPED_DSN,
    Aviary,
    aviary,
    dsn,
    singing,
    whole_wire,
)
from tests.scenarios.processes import CHANNEL

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]

ENDED = "SELECT 1 FROM requests WHERE id = {} AND state IN ('done', 'failed', 'denied', 'refused')"
# The worker met the wrong password: the run waits, or was given up.
TROUBLED = """
    SELECT 1 FROM runs
     WHERE request_id = {}
       AND (progress ->> 'waiting' IS NOT NULL OR state NOT IN ('queued', 'running'))
"""
DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'backups'"
QUIET = "SELECT 1 FROM outbox HAVING count(*) > 0 AND bool_and(state = 'sent')"


@pytest.fixture
async def birds(tmp_path: Path) -> AsyncIterator[Aviary]:
    with whole_wire():
        async with aviary(tmp_path) as made:
            yield made


async def type_in(birds: Aviary, text: str, says: str, user: str = "U0ANA") -> str:
    """Type a command; what the person is told, which must have these words in it."""
    for _ in range(5):
        sent = await birds.place.slack.command(user, CHANNEL, text)
        assert sent.ok, sent
        said = birds.place.slack.ephemerals(user)[-1]
        # On a busy machine Slack's directory or the store may be too slow: that is told.
        if "Nothing was changed. Try again" not in str(said):
            break
    assert says in str(said), (text, said)
    return str(said)


async def ask(birds: Aviary, text: str) -> int:
    """Ask for a change; its number."""
    said = await type_in(birds, text, "equest")
    return int(re.search(r"[Rr]equest (\d+)", said)[1])  # type: ignore[index]


async def agree(birds: Aviary, number: int, *people: str) -> None:
    """These people press Approve on the card of a request."""
    await birds.place.approve(*people, card=await birds.place.card(f"equest {number}"))


async def the_end_of(birds: Aviary, number: int) -> str:
    """How a request ended."""
    await birds.place.until(ENDED.format(number))
    (row,) = await birds.place.fetch("SELECT state FROM requests WHERE id = $1", number)
    return str(row["state"])


async def on(birds: Aviary, server: Any, statement: str) -> None:
    conn = await asyncpg.connect(server.dsn())
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


async def few_at_once(tried: Sequence[Coroutine[Any, Any, int]]) -> list[int]:
    """The statuses of commands, two of which run at a time."""
    turns = asyncio.Semaphore(2)

    async def one(work: Coroutine[Any, Any, int]) -> int:
        async with turns:
            return await work

    return list(await asyncio.gather(*(one(work) for work in tried)))


async def before_the_start(birds: Aviary) -> None:
    """The store is made; wrong settings, a wrong policy and a store that refuses us are told."""
    assert await birds.run("store", "upgrade") == 0, birds.said
    quoted = PASSWORDS["app"].replace("'", "''")
    await on(birds, birds.place.store, f"CREATE ROLE app LOGIN PASSWORD '{quoted}'")
    await on(birds, birds.place.store, "GRANT twokey_app TO app")
    wrong = dsn("app", PASSWORDS["store_wrong"], birds.place.store.port, "twokey")
    broken = wrong.replace(f":{birds.place.store.port}/", ":port/")
    (one, other) = (birds.place.folder / "one.yml", birds.place.folder / "other.yml")
    one.write_text(f"rules:\n  - name: {TYPED_DSN}\n    when: {{operation: {TYPED_DSN}}}\n")
    other.write_text(f"rules: {TYPED_DSN}\nbreak_glass: 'password={TYPED}'\n")
    tried = [
        birds.run("doctor", TWOKEY_VOTE_KEY="c4n4ry-short"),
        birds.run("serve", TWOKEY_HTTP_PORT="c4n4ry"),
        birds.run("serve", TWOKEY_STORE="file:/no/such/file"),
        birds.run("bot", TWOKEY_STORE=wrong),
        birds.run("bot", TWOKEY_STORE=broken),
        birds.run("doctor", TWOKEY_STORE=wrong),
        birds.run("store", "upgrade", OWNER_DSN=broken),
        birds.run("policy", "check", str(one)),
        birds.run("policy", "check", str(other)),
    ]
    assert 0 not in await few_at_once(tried)
    one.unlink()
    other.unlink()


async def backups(birds: Aviary) -> None:
    """One that is taken and verified, some that cannot be planned, one that fails half-way."""
    number = await ask(birds, f"/db backup orders reason={shlex.quote(f'as in {TYPED_DSN}')}")
    await agree(birds, number, "U0BEN", "U0CLEO")
    assert await the_end_of(birds, number) == "done"
    number = await ask(birds, "/db verify orders")
    await agree(birds, number, "U0BEN", "U0CLEO")
    assert await the_end_of(birds, number) == "done"
    await type_in(birds, "/db backup wrong", "refused our login")
    await type_in(birds, "/db backup away", "cannot be reached")
    await type_in(birds, f"/db backup {TYPED_DSN}", "no database called")
    await type_in(birds, f"/db backup orders {TYPED_DSN}", "")
    number = await ask(birds, "/db backup orders")
    await on(birds, birds.place.target, "ALTER ROLE backups NOREPLICATION")
    await agree(birds, number, "U0BEN", "U0CLEO")
    assert await the_end_of(birds, number) == "failed"
    await on(birds, birds.place.target, "ALTER ROLE backups REPLICATION")
    number = await ask(birds, "/db backup orders")
    await on(birds, birds.place.target, "ALTER ROLE backups PASSWORD 'another one'")
    await on(birds, birds.place.target, DISCONNECT)
    await agree(birds, number, "U0BEN", "U0CLEO")
    await birds.place.until(TROUBLED.format(number))
    quoted = PASSWORDS["orders"].replace("'", "''")
    await on(birds, birds.place.target, f"ALTER ROLE backups PASSWORD '{quoted}'")


async def breakdowns(birds: Aviary) -> None:
    """An operation that breaks everywhere, with secrets in its variables and its words."""
    await type_in(birds, "/db crash orders plan", "Something broke")
    for how in ("step", "run", "answer"):
        number = await ask(birds, f"/db crash orders {how}")
        assert await the_end_of(birds, number) == ("done" if how == "answer" else "failed")


async def mistakes(birds: Aviary) -> None:
    """People type secrets where reasons belong."""
    slack = birds.place.slack
    number = await ask(birds, "/db backup orders")
    card = await birds.place.card(f"equest {number}")
    assert (await slack.click("U0BEN", CHANNEL, card["ts"], "deny")).ok
    [view] = slack.views("U0BEN")
    reason = f"not with PGPASSWORD={TYPED} and {TYPED_DSN}"
    assert (await slack.submit("U0BEN", view["id"], {"reason": {"text": reason}})).ok
    assert await the_end_of(birds, number) == "denied"
    number = await ask(birds, "/db backup orders")
    await type_in(birds, f"/db break-glass {number} it is down: {TYPED_DSN}", "equest", "U0OLE")
    await birds.place.until(f"SELECT 1 FROM requests WHERE id = {number} AND state <> 'pending'")


async def the_other_door(birds: Aviary) -> None:
    """A token that is issued to a person works, and is nowhere but where it was shown."""
    said = await type_in(birds, "/db token 8 laptop", "twk_")
    token = re.search(r"twk_[\w.-]+", said)[0]  # type: ignore[index]
    birds.issued.add(token)
    url = f"http://127.0.0.1:{birds.place.port}"
    given = {"TWOKEY_URL": url, "TWOKEY_TOKEN": token}
    reason = f"because of {TYPED_DSN}"
    asked = ("request", "backup", "orders", "--reason", reason)
    tried = [
        birds.run(*asked, **given),
        birds.run("requests", **given),
        birds.run("request", "backup", "away", **given),
        birds.run("request", "crash", "orders", "plan", **given),
        birds.run("requests", **{**given, "TWOKEY_TOKEN": f"{token}x"}),
    ]
    assert [status == 0 for status in await few_at_once(tried)] == [True, True, False, False, False]


async def afterwards(birds: Aviary) -> None:
    """Commands that look at what has happened."""
    looks = ["doctor", "audit verify", "audit export", "runs list", "policy explain"]
    status = await few_at_once([birds.run(*look.split()) for look in looks])
    assert status == [1, 0, 0, 0, 0], birds.said
    for user in ("U0ANA", "U0BEN"):
        await birds.place.slack.open_home(user)
    for text in ("/db requests", "/db show 1", "/db audit orders", "/db backups orders"):
        await type_in(birds, text, "")


def without_what_is_allowed(line: str) -> str:
    """A person may type anything; a program of PostgreSQL gets its password, and no other."""
    if line.startswith("environ of"):
        return line.replace(f"PGPASSWORD={PASSWORDS['orders']}", "")
    return line.replace(TYPED_DSN, "")


def looked_where_it_counts(birds: Aviary) -> None:
    """The places that are searched really hold what happened."""
    log = (birds.place.folder / "serve.log").read_text()
    assert "broke (id" in log
    assert "Traceback" in log
    assert f"using postgresql://backups:{REDACTED}@" in log
    assert f"bob:{REDACTED}@db1" in birds.dumped()
    assert any("environ of" in line and "PGPASSWORD=c4n4ry" in line for line in birds.seen)
    told = dict(birds.told())
    assert "is complete" in told["Slack: _messages"]
    assert "Something broke" in told["Slack: _ephemerals"]
    assert birds.issued


def found(birds: Aviary, metrics: str) -> dict[str, list[str]]:
    """Every place where a canary was found, with what stands around it."""
    places = {
        "/metrics": metrics,
        "the store": birds.dumped(),
        **birds.said,
        **dict(birds.kept()),
        **{line[:100]: without_what_is_allowed(line) for line in birds.seen},
    }
    hits = {name: singing(text, birds.issued) for name, text in places.items()}
    hits |= {name: singing(text, set()) for name, text in birds.told()}
    return {name: hit for name, hit in hits.items() if hit}


async def test_no_secret_is_found_anywhere_after_the_whole_story(birds: Aviary) -> None:
    await before_the_start(birds)
    process = await birds.start()
    await backups(birds)
    await breakdowns(birds)
    await mistakes(birds)
    await the_other_door(birds)
    await afterwards(birds)
    await birds.place.until(QUIET)
    metrics = await birds.metrics()
    process.send_signal(signal.SIGTERM)
    await process.wait()
    birds.place.running.remove(process)
    assert found(birds, metrics) == {}
    looked_where_it_counts(birds)
