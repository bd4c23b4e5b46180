"""Where a secret stands instead of the secret: in settings and in the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from approvals.words import BadInputError
from bot.doctor_secrets import examine_secrets
from bot.embedded import kept_key
from bot.inventory import Inventory, load_inventory, parse_inventory
from bot.references import NoSecretError, secret_of
from bot.settings import Settings, load_settings
from tests.bot.world import INVENTORY

CANARY = "c4n4ry-of-references-0001"
DSN = f"postgresql://bob:{CANARY}@db1/orders"


def followed(text: str, folder: Path, **environ: str) -> str:
    return secret_of(SecretStr(text), folder=folder, environ=environ).get_secret_value()


def test_a_secret_that_is_no_reference_is_itself(tmp_path: Path) -> None:
    for text in (CANARY, DSN, "environment", "xoxb-file:1", "File:x"):
        assert followed(text, tmp_path) == text


def test_a_reference_leads_to_a_variable_or_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{CANARY}\n")
    assert followed("env:KEY", tmp_path, KEY=CANARY) == CANARY
    assert followed("file:key", tmp_path) == CANARY
    assert followed(f"file:{tmp_path}/key", Path("/")) == CANARY


def test_a_reference_is_followed_once(tmp_path: Path) -> None:
    assert followed("env:ONE", tmp_path, ONE="env:TWO", TWO=CANARY) == "env:TWO"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("env:KEY", "variable KEY is not set"),
        ("env:", "name of a variable"),
        ("env:a b", "name of a variable"),
        ("file:none", "file none cannot be read"),
        ("file:", "cannot be read"),
        ("file:empty", "file empty cannot be read or is empty"),
        ("file:large", "file large cannot be read"),
        ("file:bytes", "file bytes cannot be read"),
    ],
)
def test_a_reference_to_nothing_is_named_and_nothing_else(
    reference: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "large").write_text(CANARY * 10_000)
    (tmp_path / "bytes").write_bytes(CANARY.encode() + b"\xff")
    with pytest.raises(NoSecretError, match=said) as error:
        followed(reference, tmp_path)
    assert CANARY not in str(error.value)


@pytest.mark.parametrize("given", ["env:ORDERS", "{env: ORDERS}", "file:dsn", "{file: dsn}"])
def test_the_inventory_takes_references_in_both_forms(given: str, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"{DSN}\n")
    inventory = parse_inventory(
        INVENTORY % given, path=tmp_path / "twokey.yml", environ={"ORDERS": DSN}
    )
    assert inventory.databases["orders"].dsn.get_secret_value() == DSN
    assert CANARY not in repr(inventory)
    assert inventory.secret_files == ((tmp_path / "dsn",) if "file" in given else ())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("env:ORDERS", "databases.orders.dsn: the environment variable ORDERS is not set"),
        ("file:dsn", "databases.orders.dsn: the file dsn cannot be read or is empty"),
        ("''", "databases.orders.dsn: must be a text or a reference"),
        ("file:wrong", "databases.orders.dsn: a DSN starts with postgresql://"),
        (f"{{env: {CANARY}, file: x}}", "databases.orders.dsn"),
        (f"mysql://bob:{CANARY}@h/x", "databases.orders.dsn: a DSN starts with postgresql://"),
    ],
)
def test_a_wrong_dsn_is_told_without_its_value(given: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text(CANARY)
    with pytest.raises(BadInputError) as error:
        parse_inventory(INVENTORY % given, path=tmp_path / "twokey.yml", environ={})
    assert said in error.value.problem
    assert CANARY not in f"{error.value.problem} {error.value.next_step}"


def test_settings_follow_references(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("xoxb-1-2-c4n4ry\n")
    monkeypatch.setenv("TWOKEY_STORE", "env:DATABASE_URL")
    monkeypatch.setenv("DATABASE_URL", DSN)
    monkeypatch.setenv("SLACK_BOT_TOKEN", f"file:{tmp_path}/token")
    settings = load_settings()
    assert settings.store
    assert settings.store.get_secret_value() == DSN
    assert settings.slack_bot_token
    assert settings.slack_bot_token.get_secret_value() == "xoxb-1-2-c4n4ry"
    assert "c4n4ry" not in repr(settings)


@pytest.mark.parametrize("reference", ["env:NOT_SET", "file:/no/such/file"])
def test_a_setting_that_refers_to_nothing_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.setenv("SLACK_SIGNING_SECRET", reference)
    with pytest.raises(BadInputError, match="SLACK_SIGNING_SECRET cannot be used") as error:
        load_settings()
    assert reference.partition(":")[2] in error.value.problem


def test_a_short_vote_key_behind_a_reference_is_refused_without_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TWOKEY_VOTE_KEY", "env:SHORT")
    monkeypatch.setenv("SHORT", "c4n4ry-short")
    with pytest.raises(BadInputError, match=r"TWOKEY_VOTE_KEY.*32") as error:
        load_settings()
    assert "c4n4ry" not in error.value.problem


def stored(folder: Path, dsn: str) -> Inventory:
    path = folder / "twokey.yml"
    path.write_text(INVENTORY % dsn)
    path.chmod(0o644)
    return load_inventory(path, {"ORDERS": DSN})


def test_doctor_tells_of_files_that_others_may_read(tmp_path: Path) -> None:
    for name in ("dsn", "token"):
        (tmp_path / name).write_text(DSN)
        (tmp_path / name).chmod(0o600)
    settings = Settings(home=tmp_path)
    environ = {"SLACK_BOT_TOKEN": f"file:{tmp_path}/token", "SLACK_APP_TOKEN": "env:X"}
    inventory = stored(tmp_path, "file:dsn")
    [finding] = examine_secrets(settings, inventory, environ)
    assert finding.ok
    assert "2 files" in finding.says
    for name in ("dsn", "token"):
        (tmp_path / name).chmod(0o640)
        [finding] = examine_secrets(settings, inventory, environ)
        assert not finding.ok
        assert str(tmp_path / name) in finding.fix
        (tmp_path / name).chmod(0o600)


def test_doctor_tells_of_an_open_inventory_only_when_a_password_stands_in_it(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path)
    [finding] = examine_secrets(settings, stored(tmp_path, "env:ORDERS"), {})
    assert finding.ok
    [finding] = examine_secrets(settings, stored(tmp_path, DSN), {})
    assert not finding.ok
    assert CANARY not in finding.says + finding.fix


def test_the_key_of_an_embedded_store_is_ours_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "home" / "vote.key"
    key = kept_key(path)
    assert kept_key(path) == key
    assert len(key) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["vote.key"]
    [finding] = examine_secrets(Settings(home=path.parent), stored(tmp_path, "env:ORDERS"), {})
    assert finding.ok
    path.chmod(0o604)
    [finding] = examine_secrets(Settings(home=path.parent), stored(tmp_path, "env:ORDERS"), {})
    assert str(path) in finding.says
