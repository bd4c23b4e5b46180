"""What the environment may say."""

from __future__ import annotations

from datetime import timedelta

import pytest

from approvals.words import BadInputError
from bot.settings import Settings, check_names, known_names, load_settings, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("3m", 180), ("1h", 3600), ("250ms", 0.25), ("1.5s", 1.5)]
)
def test_a_duration_is_written_with_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["5", "", "PT5S", "-5s", "5 parsecs", "1h30", "9" * 12 + "s"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="5s, 3m or 1h"):
        parse_duration(text)


def test_a_misspelt_name_stops_the_start_and_says_the_nearest() -> None:
    with pytest.raises(BadInputError, match="TWOKEY_STOER") as refusal:
        check_names({"TWOKEY_STOER": "x"})
    assert "TWOKEY_STORE?" in refusal.value.next_step


def test_other_programs_names_are_none_of_our_business() -> None:
    check_names({"HOME": "/root", "SLACK_WHATEVER": "x", "TWOKEYS": "x"})


def test_a_bare_name_of_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/else")
    monkeypatch.setenv("STORE", "postgresql://not-ours")
    monkeypatch.setenv("CONFIG", "/not/ours.yml")
    settings = load_settings()
    assert settings.store is None
    assert str(settings.config) == "twokey.yml"
    assert settings.home.name == ".twokey"


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET", "TWOKEY_VOTE_KEY",
        "TWOKEY_STORE",
    ):  # fmt: skip
        monkeypatch.setenv(name, f"very-secret-value-that-is-long-enough-{name}")
    assert "very-secret" not in repr(load_settings())


@pytest.mark.parametrize(
    ("name", "value", "because"),
    [
        ("TWOKEY_VOTE_KEY", "short-key-0123", "32 characters"),
        ("TWOKEY_HTTP_PORT", "eighty", "TWOKEY_HTTP_PORT"),
        ("TWOKEY_PEOPLE_CACHE", "2m", "60s"),
        ("TWOKEY_PLAN_LIMIT", "0s", "longer than nothing"),
        ("SLACK_API_URL", "slack.com/api", "https://"),
    ],
)
def test_a_wrong_value_names_the_setting_and_hides_what_it_was(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, because: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError) as refusal:
        load_settings()
    assert name in refusal.value.problem
    assert because in refusal.value.problem
    assert value not in refusal.value.problem or name != "TWOKEY_VOTE_KEY"


def test_the_fixed_names_are_there() -> None:
    assert {
        "TWOKEY_CONFIG", "TWOKEY_STORE", "TWOKEY_HOME", "TWOKEY_VOTE_KEY", "SLACK_BOT_TOKEN",
        "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET", "SLACK_API_URL", "TWOKEY_HTTP_HOST",
        "TWOKEY_HTTP_PORT", "TWOKEY_PG_BIN", "TWOKEY_STORE_OWNER",
    } <= known_names().keys()  # fmt: skip
    assert all(known_names().values())


def test_the_api_base_ends_with_a_slash() -> None:
    assert Settings(slack_api_url="http://127.0.0.1:9/api").slack_api_url.endswith("/api/")
