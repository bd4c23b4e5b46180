"""`twokey drills`: a list for scripts, and a report in the very bytes that were hashed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from approvals.words import BadInputError
from bot.cli.main import app
from jobs.drill_words import report_json
from store.connect import Store, connect
from tests.commands.test_drills import DAMAGE, begun, had, stored
from tests.jobs.drill_samples import FULL

Twokey = Callable[..., Awaitable[Result]]


@pytest.fixture
def twokey(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twokey:
    """The command with our store; it runs a loop of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOKEY_STORE", store.dsn.get_secret_value())

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["drills", *arguments])

    return run


async def test_an_export_is_the_bytes_that_were_hashed(
    twokey: Twokey, store: Store, tmp_path: Path
) -> None:
    number = await had(store, FULL)
    found = await stored(store, number)
    printed = await twokey("export", str(number))
    assert printed.exit_code == 0, printed.output
    assert hashlib.sha256(printed.stdout_bytes).hexdigest() == found.sha256
    assert found.sha256 is not None
    assert found.sha256 in printed.stderr
    told = json.loads(printed.stdout)
    assert told == {**report_json(FULL), "request_id": number}
    written = await twokey("export", str(number), "--out", "drill.json")
    assert (written.exit_code, written.stdout) == (0, "")
    assert (tmp_path / "drill.json").read_bytes() == printed.stdout_bytes


async def test_a_report_that_was_changed_ends_with_1(twokey: Twokey, store: Store) -> None:
    number = await had(store, FULL)
    owner = connect(store.dsn, role="postgres")
    try:
        async with owner.begin() as conn:
            await conn.execute(sa.text("ALTER TABLE drills DISABLE TRIGGER drills_final"))
            await conn.execute(sa.text(DAMAGE.replace("'0')", "'5')")))
    finally:
        await owner.close()
    done = await twokey("export", str(number))
    assert done.exit_code == 1
    assert "is not the one whose hash was stored" in done.stderr
    listed = await twokey("list")
    assert "CHANGED" in listed.stdout


async def test_what_was_not_reported_is_not_exported(twokey: Twokey, store: Store) -> None:
    number = await begun(store)
    for wanted in (number, number + 1):
        done = await twokey("export", str(wanted), "--out", "x.json")
        assert isinstance(done.exception, BadInputError)  # `main` makes a 2 of it
        assert f"no report of request {wanted}" in done.exception.problem
        assert not Path("x.json").exists()


async def test_a_file_that_cannot_be_written_is_said(twokey: Twokey, store: Store) -> None:
    number = await had(store, FULL)
    done = await twokey("export", str(number), "--out", "nowhere/x.json")
    assert isinstance(done.exception, BadInputError)
    assert "cannot be written" in done.exception.problem


async def test_the_list_is_for_people_and_for_scripts(twokey: Twokey, store: Store) -> None:
    first = await had(store, FULL, cost=None)
    second = await begun(store)
    said = (await twokey("list")).stdout.splitlines()
    assert said[0].endswith("host-loss orders  running: promoted") or said[1].endswith("promoted")
    assert said[-1] == "2 drills."
    rows = {row["request"]: row for row in json.loads((await twokey("list", "--json")).stdout)}
    assert (rows[first]["end"], rows[first]["intact"]) == ("failed", True)
    assert (rows[second]["end"], rows[second]["ended_at"]) == ("", None)
    of_other = await twokey("list", "--database", "billing", "--json")
    assert json.loads(of_other.stdout) == []
