"""Connection strings, as people write them."""

from __future__ import annotations

import pytest

from postgres.dsn import parse_dsn
from postgres.errors import PostgresError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgresql:///shop", {"dbname": "shop"}),
        (
            "postgres://bob:p%40ss%2F@db:5433/shop?sslmode=require",
            {
                "host": "db",
                "port": "5433",
                "user": "bob",
                "password": "p@ss/",
                "dbname": "shop",
                "sslmode": "require",
            },
        ),
        ("postgresql://[::1]:5433/shop", {"host": "::1", "port": "5433", "dbname": "shop"}),
        ("postgresql://a:1,b:2/shop", {"host": "a,b", "port": "1,2", "dbname": "shop"}),
        (
            "postgresql://bob@/shop?host=/run/pg&port=7",
            {"user": "bob", "dbname": "shop", "host": "/run/pg", "port": "7"},
        ),
        ("host=db password='it''s'", None),
        (
            r"host=db password='it\'s a' user=bob",
            {"host": "db", "password": "it's a", "user": "bob"},
        ),
        ("host=db  port = 5433", {"host": "db", "port": "5433"}),
        ("", None),
        ("shop", None),
        ("mysql://db/shop", None),
        ("postgresql://db/shop?pasword=x", None),
    ],
)
def test_what_a_connection_string_says(text: str, words: dict[str, str] | None) -> None:
    if words is None:
        with pytest.raises(PostgresError, match="cannot be understood") as refusal:
            parse_dsn(text)
        assert "postgresql://" in refusal.value.next_step
    else:
        assert dict(parse_dsn(text).words) == words


def test_programs_get_the_password_in_their_environment() -> None:
    target = parse_dsn("postgresql://bob:p%40ss@db:5433/shop")
    assert target.environ(application_name="twokey") == {
        "PGHOST": "db",
        "PGPORT": "5433",
        "PGUSER": "bob",
        "PGPASSWORD": "p@ss",
        "PGDATABASE": "shop",
        "PGAPPNAME": "twokey",
    }


def test_another_database_of_the_same_server() -> None:
    target = parse_dsn("postgresql://bob:p%40ss@db/shop?connect_timeout=3")
    assert target.url("a/b") == "postgresql:///a%2Fb?host=db&user=bob&password=p%40ss"
    assert target.database == "shop"


def test_a_password_is_not_shown() -> None:
    assert "sesame" not in repr(parse_dsn("postgresql://bob:sesame@db/shop"))
