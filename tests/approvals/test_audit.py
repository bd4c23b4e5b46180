"""The audit: one chain per database, in which edits, gaps, insertions and cuts are found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals import audit
from approvals.audit import GENESIS, Entry, Head, entry_hash, from_line, to_line, verify
from approvals.words import BadInputError
from store.connect import Store

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def a_chain(length: int, chain: str = "orders") -> list[Entry]:
    entries: list[Entry] = []
    previous = GENESIS
    for seq in range(1, length + 1):
        entry = Entry(
            chain=chain,
            seq=seq,
            at=NOON,
            actor="ana",
            action="vote",
            request_id=seq,
            database=chain,
            detail={"to": "approved", "ü": [1, None, True]},
            prev_hash=previous,
            hash="",
        )
        entry = replace(entry, hash=entry_hash(entry))
        entries.append(entry)
        previous = entry.hash
    return entries


def head_of(entries: list[Entry]) -> list[Head]:
    last = entries[-1]
    return [Head(chain=last.chain, seq=last.seq, hash=last.hash)]


def test_a_whole_chain_has_no_findings() -> None:
    chain = a_chain(5)
    assert verify(chain, head_of(chain)) == []


def test_an_edit_is_located() -> None:
    chain = a_chain(5)
    edited = [*chain[:2], replace(chain[2], actor="eve"), *chain[3:]]
    assert [(f.seq, f.problem) for f in verify(edited, head_of(chain))] == [
        (3, "it was edited: its hash is not that of its content")
    ]


def test_an_edit_with_a_new_hash_shows_at_the_next_entry() -> None:
    chain = a_chain(5)
    eve = replace(chain[2], actor="eve")
    edited = [*chain[:2], replace(eve, hash=entry_hash(eve)), *chain[3:]]
    assert [f.seq for f in verify(edited, head_of(chain))] == [4]


def test_a_deletion_is_located() -> None:
    chain = a_chain(6)
    [finding] = verify([*chain[:2], *chain[4:]], head_of(chain))
    assert (finding.seq, finding.problem) == (5, "entries 3 to 4 are missing")


def test_an_insertion_is_located() -> None:
    chain = a_chain(4)
    findings = verify([*chain[:2], chain[1], *chain[2:]], head_of(chain))
    assert [f.seq for f in findings] == [2]


def test_a_cut_tail_is_located_by_the_head() -> None:
    chain = a_chain(5)
    [finding] = verify(chain[:3], head_of(chain))
    assert (finding.seq, finding.problem) == (
        4,
        "the chain was cut: it ends at 3 and should reach 5",
    )


def test_a_rewritten_chain_differs_from_a_kept_head() -> None:
    chain = a_chain(3)
    other = a_chain(3)
    eve = replace(other[2], actor="eve")
    other[2] = replace(eve, hash=entry_hash(eve))
    assert [f.problem for f in verify(other, head_of(chain))] == [
        "the chain was rewritten: its remembered head is another one"
    ]


@given(st.integers(0, 5), st.sampled_from(["actor", "action", "database", "chain", "prev_hash"]))
def test_no_field_can_change_unseen(which: int, name: str) -> None:
    chain = a_chain(6)
    chain[which] = replace(chain[which], **{name: "x" * 64})  # type: ignore[arg-type]
    assert verify(chain, head_of(a_chain(6)))


def test_lines_are_read_back_as_they_were() -> None:
    for entry in a_chain(2):
        assert from_line(to_line(entry)) == entry


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"at": "now"}', "nonsense"])
def test_what_is_no_line_is_refused_in_a_sentence(line: str) -> None:
    with pytest.raises(BadInputError, match="no line of an exported audit"):
        from_line(line)


async def appended(store: Store, count: int, chain: str = "orders") -> None:
    for number in range(count):
        async with store.begin() as conn:
            await audit.append(
                conn,
                chain=chain,
                at=NOON,
                actor="ana",
                action="test",
                detail={"number": number, "text": "ü\n\"'\\", "nothing": None, "b": False},
            )


async def read(store: Store) -> tuple[list[Entry], list[Head]]:
    async with store.begin() as conn:
        return [entry async for entry in audit.read(conn)], await audit.heads(conn)


async def test_what_the_database_chains_verifies_here(store: Store) -> None:
    await asyncio.gather(*(appended(store, 5, chain) for chain in ("orders", "orders", "")))
    entries, heads = await read(store)
    assert len(entries) == 15
    assert verify(entries, heads) == []
    async with store.begin() as conn:
        lines = [line async for line in audit.export(conn, chain="orders")]
    assert [from_line(line).seq for line in lines] == list(range(1, 11))


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit_log SET detail = '{\"number\": 7}' WHERE seq = 3", 3),
        ("DELETE FROM audit_log WHERE seq = 3", 4),
        ("DELETE FROM audit_log WHERE seq >= 4", 4),
        ("UPDATE audit_log SET at = at + interval '1 microsecond' WHERE seq = 2", 2),
    ],
)
async def test_what_an_owner_does_to_the_table_is_found(
    store: Store, statement: str, seq: int
) -> None:
    await appended(store, 5)
    conn = await asyncpg.connect(store.dsn.get_secret_value())
    await conn.execute("SET session_replication_role = replica")
    await conn.execute(statement)
    await conn.close()
    entries, heads = await read(store)
    assert [finding.seq for finding in verify(entries, heads)] == [seq]
