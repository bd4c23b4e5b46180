"""Which host a store is on is decided by what the hosts say, never by who answers first."""

from __future__ import annotations

import pytest

from store.hosts import Host, Seen, SplitStoreError, choose, hosts_of, objection

ONE, TWO, THREE = (Host(name=f"h{number}", port=5432) for number in (1, 2, 3))


def seen(host: Host, timeline: int, system: str = "7") -> Seen:
    return Seen(host=host, timeline=timeline, system=system)


@pytest.mark.parametrize(
    ("dsn", "places"),
    [
        ("postgresql:///twokey", []),
        ("postgresql://u:p@h1/twokey", ["h1:5432"]),
        ("postgresql://u:p%2C%40@h1:1,h2:2/twokey", ["h1:1", "h2:2"]),
        ("postgresql://h1,h2:2/twokey", ["h1:5432", "h2:2"]),
        ("postgresql://u@[::1]:1,h2/twokey", ["::1:1", "h2:5432"]),
        ("postgresql://u@/twokey?host=h1,h2&port=1,2", ["h1:1", "h2:2"]),
        ("postgresql:///twokey?host=h1,/run/pg&port=7", ["h1:7", "/run/pg:7"]),
        ("postgresql://%2Frun%2Fpg:7,h2/twokey", ["/run/pg:7", "h2:5432"]),
    ],
)
def test_hosts_are_read_as_asyncpg_reads_them(dsn: str, places: list[str]) -> None:
    assert [str(host) for host in hosts_of(dsn)] == places


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql:///t?host=h1,h2,h3&port=1,2",
        "postgresql://h1:x,h2/t",
        "postgresql://h1,h2:99x/t",
    ],
)
def test_hosts_that_cannot_be_understood_are_objected_to(dsn: str) -> None:
    assert "cannot be understood" in objection(dsn)


@pytest.mark.parametrize(
    ("dsn", "refused"),
    [
        ("postgresql://h1/t", ""),
        ("postgresql://h1/t?target_session_attrs=any", ""),
        ("postgresql:///t", ""),
        ("postgresql://h1,h2/t?target_session_attrs=primary", ""),
        ("postgresql://h1,h2/t?target_session_attrs=read-write", ""),
        ("postgresql://h1,h2/t", "Add target_session_attrs=primary"),
        ("postgresql://h1,h2/t?target_session_attrs=any", "Add target_session_attrs=primary"),
        ("postgresql://h1,h2/t?target_session_attrs=standby", "Add target_session_attrs=primary"),
        (
            "postgresql://h1,h2/t?target_session_attrs=prefer-standby",
            "Add target_session_attrs=primary",
        ),
        ("postgresql:///t?host=h1,h2", "Add target_session_attrs=primary"),
    ],
)
def test_several_hosts_must_be_asked_for_the_primary(dsn: str, refused: str) -> None:
    said = objection(dsn)
    assert bool(said) == bool(refused)
    assert refused in said
    assert "secret" not in objection(dsn.replace("//", "//u:secret@", 1))


@pytest.mark.parametrize(
    ("found", "silent", "waited", "newest", "chosen"),
    [
        ([], 2, 9.0, 0, None),
        ([seen(ONE, 1)], 0, 0.0, 0, ONE),
        ([seen(ONE, 0), seen(TWO, 1)], 0, 0.0, 0, TWO),
        ([seen(ONE, 1)], 1, 0.5, 0, None),  # the other may be newer
        ([seen(ONE, 1)], 1, 1.0, 0, ONE),  # but a hanging one is not waited for
        ([seen(ONE, 1), seen(TWO, 2)], 0, 0.0, 0, TWO),
        ([seen(TWO, 2), seen(ONE, 1)], 0, 0.0, 0, TWO),
        ([seen(ONE, 1), seen(TWO, 2)], 1, 0.5, 2, None),
        ([seen(ONE, 1)], 0, 0.0, 2, None),  # left behind, and alone
        ([seen(ONE, 1)], 1, 9.0, 2, None),
        ([seen(ONE, 1), seen(TWO, 1), seen(THREE, 2)], 0, 0.0, 0, THREE),
        ([seen(ONE, 1, ""), seen(TWO, 2)], 0, 0.0, 0, TWO),  # one keeps its cluster to itself
    ],
)
def test_the_newest_timeline_is_the_store(
    found: list[Seen], silent: int, waited: float, newest: int, chosen: Host | None
) -> None:
    best = choose(found, silent=silent, waited=waited, newest=newest, system="")
    assert (best.host if best else None) == chosen


@pytest.mark.parametrize(
    ("found", "system", "says"),
    [
        ([seen(ONE, 2), seen(TWO, 2)], "", "h1:5432 and h2:5432 take writes on the same timeline"),
        ([seen(ONE, 2, "7"), seen(TWO, 3, "8")], "", "not one cluster"),
        ([seen(ONE, 2, "8")], "7", "not one cluster"),
    ],
)
def test_nobody_writes_where_nobody_can_tell_which_is_the_store(
    found: list[Seen], system: str, says: str
) -> None:
    with pytest.raises(SplitStoreError, match=says):
        choose(found, silent=0, waited=0.0, newest=0, system=system)
