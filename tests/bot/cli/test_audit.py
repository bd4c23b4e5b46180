"""`twokey audit`: exported, anchored, packed and checked as an auditor would."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from approvals import audit
from approvals.words import ExplainedError
from bot.cli import audit as cli_audit
from bot.cli import evidence as cli_evidence
from bot.cli.audit import audit_app
from store.connect import Store
from tests.bot.world import INVENTORY, POLICY

DAY = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Twokey = Callable[..., Awaitable[Done]]


def invoked(arguments: Sequence[str]) -> Done:
    """As `bot.cli.main.main` ends it."""
    result = CliRunner().invoke(audit_app, list(arguments))
    if isinstance(error := result.exception, ExplainedError):
        return Done(2, result.stdout, f"{error.problem} {error.next_step}")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def online(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twokey:
    """The command in a folder with an inventory, and with a store."""
    (tmp_path / "policy.yml").write_text(POLICY)
    text = INVENTORY % "postgresql://nobody@127.0.0.1:1/none"
    (tmp_path / "twokey.yml").write_text(f"{text}\nanchors: {{file: anchors, channel: C0DBOPS}}\n")
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TWOKEY_STORE", store.dsn.get_secret_value())
            patch.setenv("TWOKEY_VOTE_KEY", "k" * 32)
            return await asyncio.to_thread(invoked, arguments)

    return run


def offline(folder: Path, *arguments: str) -> Done:
    """Without settings: whatever reads them, or opens a store, fails the test."""

    def forbidden(*_: object) -> None:
        raise AssertionError("settings or a store were asked for")

    with pytest.MonkeyPatch.context() as patch:
        for module in (cli_audit, cli_evidence):
            patch.setattr(module, "load_settings", forbidden)
            patch.setattr(module, "open_store", forbidden)
        patch.chdir(folder)
        return invoked(arguments)


async def a_month(store: Store) -> None:
    for number in range(6):
        async with store.begin() as conn:
            await audit.append(
                conn, chain="orders" if number % 2 else "", at=DAY + timedelta(days=number),
                actor="=ana" if number == 1 else "ben", action="vote" if number % 3 else "ask",
                detail={"n": number},
            )  # fmt: skip


async def test_what_is_exported_and_anchored_is_checked_elsewhere(
    store: Store, online: Twokey, tmp_path: Path
) -> None:
    await a_month(store)
    anchored = await online("anchor", "--json")
    assert anchored.returncode == 0, anchored.stderr
    assert json.loads(anchored.stdout)["ok"] is True
    away = tmp_path / "away"
    away.mkdir()
    for form in ("jsonl", "csv"):
        assert (
            await online("export", "--format", form, "--out", f"away/audit.{form}")
        ).returncode == 0
    (tmp_path / "anchors").rename(away / "anchors")
    for form in ("jsonl", "csv"):
        done = offline(away, "verify", f"audit.{form}", "--anchors", "anchors", "--json")
        assert done.returncode == 0, done.stdout
        report = json.loads(done.stdout)
        assert (report["ok"], report["entries"], report["anchors"]) == (True, 7, 1)
        assert report["unanchored"] == 1  # the anchor's own entry
    text = (away / "audit.jsonl").read_text().splitlines(keepends=True)
    (away / "cut.jsonl").write_text("".join(text[:-1]))
    cut = offline(away, "verify", "cut.jsonl", "--anchors", "anchors")
    assert cut.returncode == 1
    assert "orders, entry 3: the chain was cut: it ends at 2 and should reach 3." in cut.stdout
    blind = offline(away, "verify", "cut.jsonl")
    assert blind.returncode == 0
    assert "could not be checked whether a chain's end was cut off" in blind.stdout
    bad = offline(away, "verify", "audit.jsonl", "--anchors", "audit.csv")
    assert bad.returncode == 2
    assert "holds no anchors" in bad.stderr
    assert sorted(path.name for path in away.iterdir()) == [
        *("anchors", "audit.csv", "audit.jsonl", "cut.jsonl")
    ]


async def test_the_store_is_checked_against_anchors_too(
    store: Store, online: Twokey, tmp_path: Path
) -> None:
    await a_month(store)
    assert (await online("anchor")).returncode == 0
    assert (await online("verify", "--anchors", "anchors")).returncode == 0
    (tmp_path / "anchors").write_text("")
    assert (await online("verify", "--anchors", "anchors")).returncode == 2
    (tmp_path / "anchors").write_text("nonsense\n")
    broken = await online("anchor")
    assert broken.returncode == 1
    assert "holds no anchors" in broken.stdout


@pytest.mark.parametrize(
    ("options", "count", "says"),
    [
        (["--database", "orders"], 3, "the chain orders"),
        (["--chain", ""], 3, "the chain (general)"),
        (["--since", "2026-11-03"], 4, "a part of each chain"),
        (["--since", "2026-11-02T00:00+00:00", "--until", "2026-11-05"], 3, "a part of each chain"),
        (["--actor", "=ana"], 1, "chosen entries only"),
        (["--action", "ask"], 2, "chosen entries only"),
        (["--request", "7"], 0, "chosen entries only"),
    ],
)
async def test_a_part_says_that_it_is_one_and_is_checked_as_one(
    store: Store, online: Twokey, tmp_path: Path, options: list[str], count: int, says: str
) -> None:
    await a_month(store)
    for form in ("jsonl", "csv"):
        done = await online("export", "--format", form, "--out", f"part.{form}", *options)
        assert done.returncode == 0, done.stderr
        checked = offline(tmp_path, "verify", f"part.{form}", "--json")
        report = json.loads(checked.stdout)
        assert (checked.returncode, report["entries"], report["whole"]) == (0, count, False)
        assert says in report["notes"][0]


async def test_csv_is_safe_to_open(store: Store, online: Twokey) -> None:
    await a_month(store)
    rows = list(csv.reader((await online("export", "--format", "csv")).stdout.splitlines()))
    assert rows[0][0].startswith("# {")
    assert rows[1][:3] == ["chain", "seq", "at"]
    assert {row[3] for row in rows[2:]} == {"ben", "'=ana"}


async def test_an_evidence_pack_is_made_noted_and_checked(
    store: Store, online: Twokey, tmp_path: Path
) -> None:
    await a_month(store)
    made = [
        await online(
            *("evidence", "--since", "2026-11-01", "--until", "2026-11-20", "--json"),
            *("--out", f"{number}.zip"),
        )
        for number in (1, 2)
    ]
    assert [done.returncode for done in made] == [0, 0], made[0].stderr
    digest = json.loads(made[0].stdout)["manifest"]
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert (tmp_path / "1.zip").stat().st_mode & 0o077 == 0
    noted = (await online("export", "--action", "evidence")).stdout
    assert noted.count(digest) == 2
    good = offline(tmp_path, "evidence", "--verify", "1.zip", "--hash", digest, "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["ok"] is True
    other = offline(tmp_path, "evidence", "--verify", "1.zip", "--hash", "f" * 64)
    assert other.returncode == 1
    assert offline(tmp_path, "evidence", "--verify", "twokey.yml").returncode == 2
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "2026-11-01"], "--until"),
        (["--since", "x", "--until", "2026-11-02", "--out", "a.zip"], "'x' is no time"),
        (["--since", "2026-11-02", "--until", "2026-11-01", "--out", "a.zip"], "is empty"),
        (["--since", "2026-11-02", "--until", "2999-01-01", "--out", "a.zip"], "has not ended"),
    ],
)
def test_a_period_that_cannot_be_meant_is_refused(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = offline(tmp_path, "evidence", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert not list(tmp_path.iterdir())
