"""The one line of a pgbouncer.ini that is changed, and all that is not."""

from __future__ import annotations

import pytest

from postgres.cluster.bouncer_config import with_place

INI = """\
; orders = host=commented port=1
[databases]
orders = host=10.0.0.1 port=5432 dbname=orders user='the app' connect_query='SELECT host=1'
"two words"=dbname=x
others = host=10.0.0.9
[pgbouncer]
orders = host=not_here
listen_port = 6432
"""


def test_only_the_place_of_that_database_changes() -> None:
    changed = with_place(INI, "orders", host="10.0.0.2", port="5433")
    assert changed.splitlines()[2] == (
        "orders = host=10.0.0.2 port=5433 dbname=orders user='the app'"
        " connect_query='SELECT host=1'"
    )
    same = [n for n in range(8) if n != 2]
    assert [changed.splitlines()[n] for n in same] == [INI.splitlines()[n] for n in same]


def test_what_is_not_said_is_added() -> None:
    assert '"two words"=port=2 host=h dbname=x' in with_place(INI, "two words", host="h", port="2")
    assert "others = port=3 host=h\r\n" in with_place(
        INI.replace("\n", "\r\n"), "others", host="h", port="3"
    )


@pytest.mark.parametrize("name", ["nobody", "listen_port"])
def test_a_database_that_it_does_not_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"names {name} 0 times"):
        with_place(INI, name, host="h", port="1")


def test_one_that_it_names_twice_is_refused() -> None:
    twice = INI.replace("others =", "orders =")
    with pytest.raises(ValueError, match="names orders 2 times"):
        with_place(twice, "orders", host="h", port="1")
