"""What never gets into a log, a message or a row, and what must stay as it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import redact as module
from store.redact import MARK, holds_secret, redact, redact_json, redact_shown, remember

SECRET = "c4n4ry/s3cret%"


@pytest.fixture(autouse=True)
def knows_nothing() -> Iterator[None]:
    """Each test begins without known secrets, and leaves none."""
    before, module._known.values = module._known.values, ()
    yield
    module._known.values = before


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("to postgresql://bob:hunter2@db1/x now", f"to postgresql://bob:{MARK}@db1/x now"),
        ("postgres://bob:p%40ss%2Fw@db1:5432/x", f"postgres://bob:{MARK}@db1:5432/x"),
        ("postgresql://bob:p@ss/w@db1/x?a=1", f"postgresql://bob:{MARK}@db1/x?a=1"),
        ("postgresql+asyncpg://:hunter2@db1/x", f"postgresql+asyncpg://:{MARK}@db1/x"),
        ("postgresql:///x?password=hunter2&user=a", f"postgresql:///x?password={MARK}&user=a"),
        ("https://bob:hunter2@proxy:3128/", f"https://bob:{MARK}@proxy:3128/"),
        ("host=db1 password=hunter2 user=bob", f"host=db1 password={MARK} user=bob"),
        (r"host=db1 password='it\'s x' user=bob", f"host=db1 password={MARK} user=bob"),
        ("PGPASSWORD=hunter2 psql", f"PGPASSWORD={MARK} psql"),
        ("sslpassword = hunter2", f"sslpassword = {MARK}"),
        ("the password: hunter2", f"the password: {MARK}"),
        ("{'password': 'hunter2', 'user': 'bob'}", f"{{'password': {MARK}, 'user': 'bob'}}"),
        ("ALTER ROLE bob PASSWORD 'hunter2'", f"ALTER ROLE bob PASSWORD {MARK}"),
        ("token xoxb-12-34-abcDEF.", f"token {MARK}."),
        ("xoxp-12-34-56-abcdef", MARK),
        ("xapp-1-A012-345-abcdef", MARK),
        ("xoxe.xoxp-1-Mi0yLTEy", MARK),
        ("xoxe-1-My0xLTEy", MARK),
        (
            "see https://hooks.slack.com/commands/T0/12/abcDEF",
            f"see https://hooks.slack.com/{MARK}",
        ),
        ("wss://wss.slack.com/link/?ticket=abc-def&app_id=1",
         f"wss://wss.slack.com/link/?ticket={MARK}&app_id=1"),
        ("mine is twk_abc123_XYZdef", f"mine is {MARK}"),
        ("otpauth://totp/Twokey:ana?secret=JBSWY3DP&issuer=Twokey", MARK),
        ("AKIAIOSFODNN7EXAMPLE", MARK),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7", f"aws_secret_access_key = {MARK}"),
        ("TWOKEY_VOTE_KEY=abcdefgh", f"TWOKEY_VOTE_KEY={MARK}"),
        ('{"client_secret": "abcdefgh"}', f'{{"client_secret": {MARK}}}'),
        ("Authorization: Bearer abcdefgh12345678", f"Authorization: Bearer {MARK}"),
        ("authorization: Basic dXNlcjpwYXNz", f"authorization: Basic {MARK}"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK", MARK),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: A-B\nMII\n-----END RSA PRIVATE KEY----- x",
            f"{MARK} x",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMII cut off", MARK),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_taken_out(typed: str, kept: str) -> None:
    assert redact(typed) == kept
    assert redact(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "bob"',
        "SLACK_BOT_TOKEN is not set.",
        "The site is down: http://status:8080/a/@b and 3 tokens were used",
        "postgresql://bob@db1:5432/x",
        "passfile=/home/bob/.pgpass",
        "a primary key: id; the secret to success",
        "Bearer bonds are not what we mean",
        "ask ana@example.com: she knows",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "spelt",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        f"postgresql://u:{quote(SECRET, safe='')}@h",
        repr({"x": SECRET}),
        json.dumps([SECRET]),
    ],
)
def test_a_known_secret_is_found_in_each_spelling(spelt: str) -> None:
    remember([SECRET])
    assert "c4n4ry" not in redact(f"said {spelt}, at the end")
    assert "c4n4ry" not in redact_shown(f"said {spelt}, at the end")


def test_a_known_secret_with_quotes_is_found_in_a_repr_and_in_json() -> None:
    remember(["c4n4ry\"'\\é\n-x"])
    for spelt in (repr(["c4n4ry\"'\\é\n-x"]), json.dumps("c4n4ry\"'\\é\n-x")):
        assert "c4n4ry" not in redact(spelt)


def test_words_and_short_values_are_not_remembered() -> None:
    remember(["postgres", "twokey_app", "s3cret"])
    text = "postgres: role twokey_app has s3cret"
    assert redact(text) == text


def test_the_longest_of_two_known_secrets_is_taken_out_whole() -> None:
    remember(["c4n4ry-12", "c4n4ry-12-and-more"])
    assert redact("x c4n4ry-12-and-more y") == f"x {MARK} y"


def test_the_registry_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_MAX", 3)
    with pytest.raises(ValueError, match="more than 3"):
        remember(f"c4n4ry-{number}" for number in range(4))


def test_what_is_issued_to_a_person_may_be_shown_to_them_and_not_be_kept() -> None:
    for issued in ("twk_abc123_XYZdef", "otpauth://totp/Twokey:ana?secret=JBSWY3DP"):
        assert redact_shown(issued) == issued
        assert redact(issued) == MARK


def test_sql_is_no_secret_for_sure_and_a_dsn_with_a_password_is() -> None:
    assert not holds_secret("UPDATE users SET password = 'x' WHERE token = 'abcdefghij'")
    assert holds_secret("dblink('postgresql://bob:hunter2@db1/x')")
    assert holds_secret("twk_abc123_XYZdef")


def test_json_keeps_its_shape() -> None:
    value = {"a": ["x", {"b": "password=hunter2"}, ("y",)], "n": 1, "none": None}
    assert redact_json(value) == {
        "a": ["x", {"b": f"password={MARK}"}, ("y",)],
        "n": 1,
        "none": None,
    }


def test_json_without_secrets_is_the_same_value() -> None:
    value = {"a": ["x", {"password": "hunter2"}], "b": "see password: in the docs"}
    assert redact_json({"a": 1}) == {"a": 1}
    clean = {"a": ["x"], "b": "y"}
    assert redact_json(clean) is clean
    assert redact_json(value)["a"] == value["a"]


@given(text=st.text(max_size=300))
def test_any_text_is_taken_and_twice_is_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(
    password=st.text(
        st.characters(codec="ascii", categories=("L", "N", "P", "S"), exclude_characters="'\"<>"),
        min_size=1,
        max_size=40,
    ),
    before=st.sampled_from(["", "see ", "x\n", "url=", "(", "<"]),
)
def test_no_password_in_a_url_survives(password: str, before: str) -> None:
    text = f"{before}postgresql://bob:{quote(password, safe='')}@db1/orders"
    assert redact(text) == f"{before}postgresql://bob:{MARK}@db1/orders"


@pytest.mark.parametrize(
    "piece",
    [
        *("postgres://:", "://a:", "password", "password=", "password='", "secret'", 'token" : "'),
        *("-----BEGIN PRIVATE KEY-----", "twk_", "bearer ", "eyj", "authorization ", "xoxb-"),
        *("otpauth://", "akia", "?ticket=", "hooks.slack.com/"),
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 2
