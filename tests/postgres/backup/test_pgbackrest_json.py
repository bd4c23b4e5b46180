"""What pgBackRest says, understood without pgBackRest."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postgres.backup.engine import TakeOrder
from postgres.backup.pgbackrest_facts import facts_of
from postgres.backup.pgbackrest_json import (
    Stanza,
    parse_archive,
    parse_info,
    parse_verify,
    parse_version,
    too_old_for,
)
from postgres.backup.pgbackrest_program import failure
from postgres.backup.pgbackrest_rules import check_cluster, check_removable, check_removed, type_of
from postgres.backup.pgbackrest_settings import read_options, weaknesses
from postgres.backup.source import Source
from postgres.errors import PostgresError
from postgres.programs import Finished

FULL = "20261122-020000F"
DIFF = f"{FULL}_20261123-020000D"
INCREMENT = f"{FULL}_20261124-020000I"
NEWER = "20261125-020000F"


def backup(label: str, *, on: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "annotation": {"twokey-id": f"orders-{label[:8]}"},
        "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000003"},
        "database": {"id": 1, "repo-key": 1},
        "error": False,
        "info": {"delta": 10, "repository": {"delta": 5, "size": 7}, "size": 20},
        "label": label,
        "lsn": {"start": "0/2000028", "stop": "0/3000100"},
        "prior": on[-1] if on else None,
        "reference": list(on) or None,
        "timestamp": {"start": 1795373746, "stop": 1795373748},
        "type": {"F": "full", "D": "diff", "I": "incr"}[label[-1]],
        **more,
    }


def info(*backups: dict[str, Any], code: int = 0) -> str:
    return json.dumps(
        [
            {
                "archive": [{"database": {"id": 1, "repo-key": 1}, "id": "15-1"}],
                "backup": list(backups),
                "cipher": "none",
                "db": [{"id": 1, "repo-key": 1, "system-id": 77, "version": "15"}],
                "name": "orders",
                "repo": [{"cipher": "none", "key": 1, "status": {"code": code, "message": "said"}}],
                "status": {"code": code, "message": "said"},
            }
        ]
    )


def stanza(*backups: dict[str, Any]) -> Stanza:
    return parse_info(info(*backups))


def test_a_backup_of_ours_has_our_name_and_all_that_a_recovery_goes_by() -> None:
    found = stanza(backup(FULL))
    facts = facts_of(found.backups[0], found, compression="zst", database="orders")
    assert (facts.id, facts.label, facts.kind) == ("orders-20261122", FULL, "full")
    assert (facts.start_lsn, facts.end_lsn, facts.timeline) == ("0/2000028", "0/3000100", 1)
    assert (facts.system_identifier, facts.major) == ("77", 15)
    assert (facts.size_bytes, facts.data_bytes, facts.files) == (5, 20, ())


def test_a_backup_that_we_did_not_take_is_called_by_its_label() -> None:
    found = stanza(backup(FULL, annotation=None), backup(INCREMENT, on=(FULL,), annotation={}))
    facts = [facts_of(each, found, compression="gz", database="x") for each in found.backups]
    assert [(each.id, each.kind, each.base) for each in facts] == [
        (FULL, "full", None),
        (INCREMENT, "incremental", FULL),
    ]
    assert "not counted" in facts[0].counting_problem


def test_a_backup_never_seems_to_have_ended_before_it_did() -> None:
    # pgBackRest cuts seconds off: 1795373748 is any moment up to the next one.
    [taken] = stanza(backup(FULL)).backups
    assert taken.ended_at == datetime.fromtimestamp(1795373748, UTC) + timedelta(seconds=1)


@pytest.mark.parametrize(("said", "bad"), [(False, []), (True, [FULL]), (None, [FULL])])
def test_pages_are_sound_only_where_it_says_so(said: object, bad: list[str]) -> None:
    found = stanza(backup(FULL, error=said)).backups
    assert [taken.label for taken in found if taken.error] == bad


def test_backups_of_another_repository_are_not_ours() -> None:
    assert stanza(backup(FULL, database={"id": 1, "repo-key": 2})).backups == ()


@pytest.mark.parametrize("text", ["", "[]", "[{}]", "null", "{", "[{}, {}]"])
def test_an_answer_that_cannot_be_read_is_no_empty_repository(text: str) -> None:
    with pytest.raises(PostgresError, match="cannot be understood"):
        parse_info(text)


@pytest.mark.parametrize(
    ("start_wal", "start", "end_wal", "end", "size_mb"),
    [
        ("000000010000000000000002", "0/2000028", "000000010000000000000003", "0/3000100", 16),
        ("000000010000000000000002", "0/8000028", "000000010000000000000002", "0/8000100", 64),
        ("000000010000000100000001", "1/40000028", "000000010000000100000001", "1/40000100", 1024),
        # An end on a border belongs to the segment before it.
        ("000000010000000000000002", "0/2000028", "000000010000000000000002", "0/3000000", 16),
    ],
)
def test_the_size_of_a_segment_follows_from_a_position_and_its_file(
    start_wal: str, start: str, end_wal: str, end: str, size_mb: int
) -> None:
    found = stanza(
        backup(
            FULL, archive={"start": start_wal, "stop": end_wal}, lsn={"start": start, "stop": end}
        )
    )
    assert found.backups[0].segment_bytes == size_mb * 1024 * 1024


def test_of_the_archive_only_whole_segments_of_this_cluster_count() -> None:
    file = {"type": "file", "size": 9, "time": 1795373747}
    text = json.dumps(
        {
            ".": {"type": "path"},
            "15-1": {"type": "path"},
            "15-1/0000000100000000/000000010000000000000002-ab12.zst": file,
            "15-1/0000000100000000/000000010000000000000002.00000028.backup": file,
            "15-1/0000000100000000/000000010000000000000003.partial-cd34.gz": file,
            "15-1/00000002.history": file,
            "14-1/0000000100000000/000000010000000000000009-ef56": file,
            "archive.info": file,
        }
    )
    segments, histories = parse_archive(text, "15-1")
    assert [(each.name[-1], each.is_partial) for each in segments] == [("2", False), ("3", True)]
    assert histories == ("00000002.history",)


VERIFIED = f"""\
stanza: orders
status: error
  archiveId: 15-1, total WAL checked: 8, total valid WAL: 7
    missing: 0, checksum invalid: 0, size invalid: 0, other: 1
  backup: {FULL}, status: invalid, total files checked: 968, total valid files: 967
    missing: 0, checksum invalid: 1, size invalid: 0, other: 0
  backup: {NEWER}, status: valid, total files checked: 967, total valid files: 967
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


def test_damage_is_read_out_of_the_words_of_verify() -> None:
    found = parse_verify(VERIFIED)
    assert found.backups[FULL] == (
        "pgBackRest calls it invalid",
        "files of it with a problem (checksum invalid): 1",
    )
    assert found.backups[NEWER] == ()
    assert found.archive == ("files of the archive of WAL 15-1 with a problem (other): 1",)


def test_a_repository_without_its_lists_is_not_usable() -> None:
    assert not parse_verify("stanza: x\nstatus: error\n  No usable backup.info file\n").usable
    with pytest.raises(PostgresError):
        parse_verify("")


@pytest.mark.parametrize(
    ("said", "major", "needed"),
    [
        ("pgBackRest 2.45", 15, None),
        ("pgBackRest 2.45", 16, (2, 48)),
        ("pgBackRest 2.54.2", 17, None),
        ("pgBackRest 2.54.2", 18, (2, 57)),
        ("pgBackRest 2.40", 14, (2, 45)),
    ],
)
def test_a_version_that_cannot_back_up_a_server_is_told_which_can(
    said: str, major: int, needed: tuple[int, int] | None
) -> None:
    assert too_old_for(parse_version(said), major) == needed


def test_what_others_build_on_and_the_last_full_one_stay() -> None:
    chain = stanza(backup(FULL), backup(DIFF, on=(FULL,)), backup(INCREMENT, on=(FULL, DIFF)))
    full, diff, increment = chain.backups
    for taken in (full, diff):
        with pytest.raises(PostgresError, match="build on it"):
            check_removable(taken, chain)
    check_removable(increment, chain)
    alone = stanza(backup(FULL))
    with pytest.raises(PostgresError, match="the last full backup"):
        check_removable(alone.backups[0], alone)
    # One with damaged pages does not count as another one.
    pair = stanza(backup(FULL), backup(NEWER, error=True))
    with pytest.raises(PostgresError, match="the last full backup"):
        check_removable(pair.backups[0], pair)
    check_removable(pair.backups[1], pair)


def test_what_has_gone_is_looked_at_afterwards() -> None:
    before = stanza(backup(FULL), backup(NEWER), backup(INCREMENT, on=(FULL,)))
    taken = before.backups[2]
    check_removed(taken, before, stanza(backup(FULL), backup(NEWER)))
    with pytest.raises(PostgresError, match="still there"):
        check_removed(taken, before, before)
    with pytest.raises(PostgresError, match=f"gone as well: {FULL}"):
        check_removed(taken, before, stanza(backup(NEWER)))


@pytest.mark.parametrize(
    ("base", "asked"),
    [(None, "incr"), ("orders-20261122", "diff"), (FULL, "diff"), (INCREMENT, "incr")],
)
def test_an_increment_builds_on_what_was_asked_for_or_is_refused(
    base: str | None, asked: str
) -> None:
    found = stanza(
        backup(FULL), backup(DIFF, on=(FULL,), annotation={}),
        backup(INCREMENT, on=(FULL, DIFF), annotation={}),
    )  # fmt: skip
    assert type_of(TakeOrder(backup_id="x", kind="incremental", base=base), found) == asked


@pytest.mark.parametrize(
    ("order", "because"),
    [
        (TakeOrder(backup_id="x", kind="logical"), "no logical backups"),
        (TakeOrder(backup_id="x", kind="incremental"), "no full backup"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason(order: TakeOrder, because: str) -> None:
    with pytest.raises(PostgresError, match=because):
        type_of(order, stanza())


def test_an_increment_on_an_older_backup_is_refused() -> None:
    found = stanza(backup(FULL), backup(DIFF, on=(FULL,), annotation={}), backup(NEWER))
    with pytest.raises(PostgresError, match="not on orders-20261122"):
        type_of(TakeOrder(backup_id="x", kind="incremental", base="orders-20261122"), found)


def test_a_stanza_of_another_cluster_is_refused() -> None:
    source = Source(
        major=15, version="15.18", page_checksums=True, segment_bytes=1 << 24, zstd=True,
        system_identifier="77", superuser="postgres", settings={}, timeline=1, standby=False,
        summarizes_wal=False,
    )  # fmt: skip
    check_cluster("orders", stanza(), source)
    with pytest.raises(PostgresError, match=r"another cluster \(77\) than .* \(78\)"):
        check_cluster("orders", stanza(), replace(source, system_identifier="78"))


SAFE = {"repo1-type": "s3", "repo1-cipher-type": "aes-256-cbc", "repo1-s3-key-secret": "hidden"}


@pytest.mark.parametrize(
    ("options", "mode", "said"),
    [
        (SAFE, 0o640, ()),
        ({"repo1-path": "/backups"}, 0o644, ()),
        ({**SAFE, "repo1-cipher-type": "none"}, 0o640, ("does not encrypt",)),
        ({"repo1-type": "azure"}, 0o640, ("does not encrypt",)),
        ({**SAFE, "repo1-storage-verify-tls": "n"}, 0o640, ("does not check the certificate",)),
        (SAFE, 0o644, ("Everybody on this machine",)),
    ],
)
def test_what_a_configuration_leaves_open(
    options: dict[str, str], mode: int, said: tuple[str, ...]
) -> None:
    found = weaknesses(options, mode)
    assert len(found) == len(said)
    for finding, text in zip(found, said, strict=True):
        assert text in finding.problem
        assert finding.next_step
        assert "hidden" not in finding.problem + finding.next_step


def test_a_stanza_s_own_options_win() -> None:
    text = "# c\n[global]\nrepo1-type = s3\nprocess-max=2\n[orders]\nprocess-max=4\n[x]\na=b"
    assert read_options(text, "orders") == {"repo1-type": "s3", "process-max": "4"}


def test_an_error_is_a_sentence_with_a_next_step() -> None:
    said = "WARN: x\nERROR: [050]: unable to acquire lock on file 'x.lock'\n       HINT: is it?\n"
    error = failure("backup", Finished(code=50, stdout="", stderr=said, seconds=1))
    assert error.problem == (
        "pgBackRest backup failed (050): unable to acquire lock on file 'x.lock'."
    )
    assert "Another pgBackRest is at work" in error.next_step
