"""An evidence pack: all of a period, the same bytes each time, and no change of it unseen."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from approvals import anchoring, audit, evidence
from approvals.anchors import Anchors, make_anchors, read_anchors, to_line
from approvals.calls import Decision
from approvals.chain import GENESIS
from approvals.evidence import Period, write_pack
from approvals.evidence_check import PackReport, check_pack
from approvals.evidence_text import Population
from approvals.plans import canonical, sha256
from approvals.words import BadInputError, Verdict
from jobs.drill_audit import store_report
from store import tables
from store.connect import Store
from store.drills import begin_drill
from tests.approvals.support import (
    BEN,
    CLEO,
    NOON,
    Clock,
    a_ballot,
    an_ask,
    approvals_on,
    policy_of,
)
from tests.jobs.drill_samples import FULL

PERIOD = Period(since=NOON, until=NOON + timedelta(days=1))


async def a_day(store: Store, *, and_after: bool = True) -> None:
    """One request before the period, three within it, one after; votes of all kinds."""
    clock = Clock(NOON - timedelta(hours=2))
    approvals = approvals_on(store, policy_of(approve=2), clock=clock)

    async def asked() -> Decision:
        return await approvals.ask(an_ask())

    early = await asked()
    await approvals.vote(a_ballot(early, BEN))
    clock.forward(hours=3)
    await approvals.vote(a_ballot(early, CLEO))  # which is within the period
    first = await asked()
    await approvals.vote(a_ballot(first, BEN))
    clock.forward(minutes=1)
    await approvals.vote(a_ballot(first, CLEO))
    second = await asked()
    await approvals.vote(a_ballot(second, BEN, Verdict.DENY))
    third = await asked()
    await approvals.vote(a_ballot(third, BEN))
    if and_after:
        clock.forward(days=2)
        late = await asked()
        await approvals.vote(a_ballot(late, BEN))
    for table in (tables.tokens, tables.second_factors, tables.deliveries):
        await filled_with_canaries(store, table)


async def filled_with_canaries(store: Store, table: sa.Table) -> None:
    """A row in which every text is a canary."""
    values: dict[str, object] = {}
    for column in table.columns:
        match column.type:
            case sa.Text():
                values[column.name] = f"canary {table.name}"
            case TIMESTAMP():
                values[column.name] = NOON
            case JSONB():
                values[column.name] = {"canary": f"canary {table.name}"}
            case _:
                values[column.name] = 0
    async with store.begin() as conn:
        await conn.execute(table.insert().values(values))


async def a_drill(store: Store, request_id: int, *, at: datetime, reported: bool = True) -> None:
    """A drill of a request that began then: told in the audit, or left without a report."""
    async with store.begin() as conn:
        await begin_drill(
            conn, request_id=request_id, run_key="run-1", database="orders",
            environment="staging", kind="switchover", at=at,
        )  # fmt: skip
        if reported:
            later = at + timedelta(minutes=5)
            await store_report(conn, replace(FULL, request_id=request_id, started_at=at), now=later)


async def packed(
    store: Store, folder: Path, name: str = "pack.zip"
) -> tuple[Path, str, Population]:
    path = folder / name
    with path.open("w+b") as file:
        async with store.begin() as conn:
            digest, population = await write_pack(conn, file, PERIOD)
    return path, digest, population


async def anchors_of(store: Store) -> Anchors:
    async with store.begin() as conn:
        heads = await audit.heads(conn)
    [anchor] = make_anchors(heads, at=NOON, prev=GENESIS)
    return read_anchors([to_line(anchor)], name="anchors")


def files_of(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_what_a_pack_holds_is_said_in_good_words_for_one_too() -> None:
    times = {"since": "2026-11-01", "until": "2026-12-01"}
    one = Population(requests=1, asked=1, **times).statement
    assert one.startswith("The one request, no sample: 1 that was asked in the period")
    more = Population(requests=1200, asked=1199, **times).statement
    assert more.startswith("All 1,200 requests, no sample: 1,199 that were asked in the period")
    assert "and 1 older or newer one that" in more
    report = PackReport(
        manifest="x", files=1, requests=1, votes=1, problems=("It is odd.",), notes=()
    )
    assert list(report.sentences())[-2:] == ["Manifest x: 1 file, 1 request.", "1 vote: 1 finding."]


def checked(path: Path, digest: str | None = None, anchors: Anchors | None = None) -> PackReport:
    return check_pack(path, anchors=anchors, manifest=digest)


async def test_it_holds_all_requests_of_the_period_and_is_in_order(
    store: Store, tmp_path: Path
) -> None:
    await a_day(store)
    path, digest, population = await packed(store, tmp_path)
    report = checked(path, digest)
    assert report.problems == ()
    assert (report.ok, report.requests, report.votes, report.manifest) == (True, 4, 6, digest)
    assert (population.requests, population.asked) == (4, 3)
    files = files_of(path)
    assert "All 4 requests, no sample: 3 that were asked in the period" in files["README.txt"]
    assert [json.loads(line)["id"] for line in files["requests.jsonl"].splitlines()] == [1, 2, 3, 4]
    [vote, *_] = [json.loads(line) for line in files["votes.jsonl"].splitlines()]
    assert vote["groups"][0] == "dba"
    assert vote["signature"]
    assert vote["key_id"]
    assert len(files["policies.jsonl"].splitlines()) == 1
    assert json.loads(files["MANIFEST.json"])["files"]["votes.jsonl"]["rows"] == 6


async def test_the_same_store_gives_the_same_bytes(store: Store, tmp_path: Path) -> None:
    await a_day(store)
    one, digest, population = await packed(store, tmp_path, "one.zip")
    async with store.begin() as conn:
        at = NOON + timedelta(days=3)
        await evidence.note(conn, population, manifest=digest, by="ola", at=at)
    two, again, _ = await packed(store, tmp_path, "two.zip")
    assert one.read_bytes() == two.read_bytes()
    assert digest == again
    async with store.begin() as conn:
        [entry] = [e async for e in audit.read(conn, chain="") if e.action == "evidence"]
    assert entry.detail["manifest"] == digest
    assert entry.detail["requests"] == 4


async def test_there_are_no_secrets_in_it(store: Store, tmp_path: Path) -> None:
    await a_day(store)
    path, _, _ = await packed(store, tmp_path)
    data = path.read_bytes()
    for canary in ("canary", "the key of the tests"):
        assert canary.encode() not in data
    assert not {"tokens.jsonl", "second_factors.jsonl", "deliveries.jsonl"} & files_of(path).keys()


def rewritten(path: Path, change: Callable[[dict[str, str]], None], *, honest: bool) -> Path:
    """The pack after somebody changed a file; `honest` leaves the manifest as it was."""
    files = files_of(path)
    change(files)
    if not honest:
        manifest = json.loads(files["MANIFEST.json"])
        manifest["files"] = {
            name: {"rows": text.count("\n"), "sha256": sha256(text)}
            for name, text in files.items()
            if name != "MANIFEST.json"
        }
        files["MANIFEST.json"] = json.dumps(manifest, sort_keys=True, separators=(",", ":")) + "\n"
    other = path.with_name("changed.zip")
    with zipfile.ZipFile(other, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return other


def without_last(name: str) -> Callable[[dict[str, str]], None]:
    def change(files: dict[str, str]) -> None:
        files[name] = "".join(files[name].splitlines(keepends=True)[:-1])

    return change


def replaced(name: str, old: str, new: str) -> Callable[[dict[str, str]], None]:
    def change(files: dict[str, str]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


def removed(name: str) -> Callable[[dict[str, str]], None]:
    def change(files: dict[str, str]) -> None:
        del files[name]

    return change


def repeated(name: str) -> Callable[[dict[str, str]], None]:
    def change(files: dict[str, str]) -> None:
        files[name] += files[name].splitlines(keepends=True)[-1]

    return change


async def test_any_changed_missing_or_added_file_is_found(store: Store, tmp_path: Path) -> None:
    await a_day(store)
    path, digest, _ = await packed(store, tmp_path)
    for name in files_of(path):
        gone = checked(rewritten(path, removed(name), honest=True))
        assert any(name in problem for problem in gone.problems), name
        if name == "MANIFEST.json":
            continue
        changed = rewritten(
            path, lambda files, name=name: files.update({name: files[name] + " "}), honest=True
        )
        assert checked(changed).problems == (
            f"{name} was changed: its hash is not that of the manifest.",
        )
    added = rewritten(path, lambda files: files.update({"more.txt": "x"}), honest=True)
    assert checked(added).problems == ("more.txt was added: the manifest does not name it.",)
    assert checked(path, digest).ok
    assert "its hash is" in checked(path, "0" * 64).problems[0]


async def test_what_is_inside_is_held_against_the_audit_even_under_a_new_manifest(
    store: Store, tmp_path: Path
) -> None:
    await a_day(store)
    path, digest, _ = await packed(store, tmp_path)
    for change, says in (
        (without_last("votes.jsonl"), "missing here, or stands here differently"),
        (repeated("votes.jsonl"), "stands 2 times"),
        (replaced("votes.jsonl", '"person":"cleo@', '"person":"eve@'), "is not in the audit"),
        (replaced("votes.jsonl", '"groups":["dba"', '"groups":["all"'), "is not in the audit"),
        (replaced("votes.jsonl", "looks right", "looks bad"), "is not in the audit"),
        (replaced("votes.jsonl", '"signature":"', '"signature":"0'), "is not in the audit"),
        (replaced("votes.jsonl", '"verdict":"deny"', '"verdict":"approve"'), "is not in the audit"),
        (without_last("requests.jsonl"), "Request 4 is missing"),
        (replaced("requests.jsonl", "Back up orders", "Back up others"), "not the one of its hash"),
        (removed("policies.jsonl"), "does not hold what it should"),
        (without_last("policies.jsonl"), "is missing"),
        (without_last("audit.jsonl"), "is not in the audit"),
        (replaced("audit.jsonl", '"verdict":"deny"', '"verdict":"approve"'), "it was edited"),
        (without_last("audit_related.jsonl"), "is not in the audit"),
        (replaced("MANIFEST.json", '"requests":4', '"requests":3'), "there are 4"),
    ):
        other = rewritten(path, change, honest=False)
        problems = checked(other).problems
        assert any(says in problem for problem in problems), (says, problems)
        assert not checked(other, digest).ok


async def test_drills_of_the_period_are_in_it_with_their_reports(
    store: Store, tmp_path: Path
) -> None:
    await a_day(store, and_after=False)
    await a_drill(store, 1, at=NOON - timedelta(minutes=2))  # which ends within the period
    await a_drill(store, 3, at=NOON + timedelta(hours=2))
    await a_drill(store, 4, at=NOON + timedelta(hours=3), reported=False)
    path, digest, _ = await packed(store, tmp_path)
    rows = [json.loads(line) for line in files_of(path)["drills.jsonl"].splitlines()]
    assert [row["request_id"] for row in rows] == [1, 3, 4]
    assert rows[1]["database"] == "orders"
    assert rows[1]["report"]["kind"] == "primary-crash"
    assert rows[1]["sha256"] == sha256(canonical(rows[1]["report"]))
    assert (rows[2]["report"], rows[2]["sha256"], rows[2]["ended_at"]) == (None, None, None)
    assert checked(path, digest).problems == ()


async def test_drills_of_other_times_are_not_in_it(store: Store, tmp_path: Path) -> None:
    await a_day(store)
    await a_drill(store, 5, at=NOON + timedelta(days=3))
    path, _, _ = await packed(store, tmp_path)
    assert files_of(path)["drills.jsonl"] == ""
    assert checked(path).problems == ()


async def test_a_drills_report_is_held_against_its_hash_and_the_audit(
    store: Store, tmp_path: Path
) -> None:
    await a_day(store)
    await a_drill(store, 2, at=NOON + timedelta(hours=1))
    await a_drill(store, 3, at=NOON + timedelta(hours=2))
    path, _, _ = await packed(store, tmp_path)
    for change, says in (
        (replaced("drills.jsonl", '"lost":0', '"lost":9'), "request 2 is not the one of its hash"),
        (told_anew, "tells of a drill of request 2 whose report is missing here, or stands here"),
        (without_last("drills.jsonl"), "tells of a drill of request 3 whose report is missing"),
        (removed("drills.jsonl"), "tells of a drill of request 2 whose report is missing"),
        (repeated("drills.jsonl"), "The drill of request 3 stands twice"),
        (replaced("drills.jsonl", '"request_id":3,"run', '"request_id":4,"run'),
         "The report of the drill of request 4 is not in the audit"),
        (replaced("drills.jsonl", '"request_id":3,"run', '"request_id":99,"run'),
         "request 99 is of a request that is not here"),
        (unhashed, "The report of the drill of request 2 is not the one of its hash"),
        (replaced("drills.jsonl", '"sha256"', '"md5"'), "does not hold what it should"),
    ):  # fmt: skip
        problems = checked(rewritten(path, change, honest=False)).problems
        assert any(says in problem for problem in problems), (says, problems)


def told_anew(files: dict[str, str]) -> None:
    """Somebody edits a report and its hash, as who writes into the store could."""
    first, *others = files["drills.jsonl"].splitlines(keepends=True)
    row = json.loads(first)
    row["report"]["cost"]["lost"] = 9
    row["sha256"] = sha256(canonical(row["report"]))
    files["drills.jsonl"] = canonical(row) + "\n" + "".join(others)


def unhashed(files: dict[str, str]) -> None:
    first, *others = files["drills.jsonl"].splitlines(keepends=True)
    row = {**json.loads(first), "sha256": None}
    files["drills.jsonl"] = canonical(row) + "\n" + "".join(others)


async def test_a_pack_of_before_there_were_drills_is_in_order(store: Store, tmp_path: Path) -> None:
    await a_day(store)
    path, _, _ = await packed(store, tmp_path)
    assert checked(rewritten(path, removed("drills.jsonl"), honest=False)).problems == ()


async def test_the_slice_is_held_against_anchors_that_were_kept(
    store: Store, tmp_path: Path
) -> None:
    await a_day(store)
    async with store.begin() as conn:
        taken = await anchoring.take(conn, at=NOON, by="twokey", channel=None)
    path, _, _ = await packed(store, tmp_path)
    assert checked(path, anchors=await anchors_of(store)).ok
    part = files_of(path)["audit.jsonl"].splitlines()[-1]
    seq = json.loads(part)["seq"]
    [anchor] = make_anchors(
        [h.__class__(chain=h.chain, seq=seq, hash="f" * 64) for h in taken.heads],
        at=NOON, prev=GENESIS,
    )  # fmt: skip
    report = checked(path, anchors=read_anchors([to_line(anchor)], name="anchors"))
    assert "the chain was rewritten" in report.problems[0]


async def test_an_empty_period_is_a_pack_too(store: Store, tmp_path: Path) -> None:
    path, digest, population = await packed(store, tmp_path)
    assert checked(path, digest).ok
    assert population.requests == 0


def test_what_is_no_pack_is_refused_and_what_is_damaged_is_found(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match="evidence pack"):
        checked(path)
    with pytest.raises(BadInputError, match="evidence pack"):
        checked(tmp_path / "none.zip")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("MANIFEST.json", '{"files": 3}')
    path.write_bytes(buffer.getvalue())
    assert "MANIFEST.json is missing or cannot be read." in checked(path).problems


async def test_a_flipped_byte_anywhere_in_a_file_is_found(store: Store, tmp_path: Path) -> None:
    await a_day(store)
    path, _, _ = await packed(store, tmp_path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        spots = [info.header_offset + 80 for info in archive.infolist() if info.file_size > 100]
    for spot in spots:
        path.write_bytes(data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :])
        try:
            assert not checked(path).ok
        except BadInputError:
            continue
