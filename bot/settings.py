"""What a process is told by its environment, checked before anything starts."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Final, get_args

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from approvals.words import BadInputError
from bot.redact import remember_secrets
from bot.references import secret_of
from store.hosts import objection

_UNITS: Final[Mapping[str, timedelta]] = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")
_KEY_CHARS_MIN: Final = 32
_TOKEN_CHARS_MIN: Final = 16


def parse_duration(value: object) -> timedelta:
    """`5s`, `3m`, `1h`, `250ms` or `7d` as a timedelta; a timedelta stays what it is.

    Raises:
        ValueError: anything else, a bare number included: its unit would be a guess.
    """
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"{value!r} is no duration; write it like 5s, 3m or 1h")
    return float(found[1]) * _UNITS[found[2]]


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]


class Settings(BaseSettings):
    """Everything that the environment can say. Secrets never show in `repr` or in logs."""

    # The prefix keeps a field's bare name, such as HOME, from being read as ours.
    model_config = SettingsConfigDict(
        env_prefix="TWOKEY_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,
    )

    config: Path = Field(
        default=Path("twokey.yml"), validation_alias="TWOKEY_CONFIG", description="The inventory"
    )
    store: SecretStr | None = Field(
        default=None,
        validation_alias="TWOKEY_STORE",
        description="DSN of the store; unset: an embedded server",
    )
    store_owner: SecretStr | None = Field(
        default=None,
        validation_alias="TWOKEY_STORE_OWNER",
        description="DSN that may change the store's schema",
    )
    home: Path = Field(
        default=Path("~/.twokey"),
        validation_alias="TWOKEY_HOME",
        description="Where files of this host live",
    )
    vote_key: SecretStr | None = Field(
        default=None,
        validation_alias="TWOKEY_VOTE_KEY",
        description="Key that signs votes, 32 characters or more",
    )
    vote_key_previous: SecretStr | None = Field(
        default=None,
        validation_alias="TWOKEY_VOTE_KEY_PREVIOUS",
        description="The key before, during a rotation",
    )
    pg_bin: Path | None = Field(
        default=None,
        validation_alias="TWOKEY_PG_BIN",
        description="Folder of PostgreSQL's programs",
    )
    http_host: str = Field(
        default="127.0.0.1", validation_alias="TWOKEY_HTTP_HOST", description="Where to listen"
    )
    http_port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        validation_alias="TWOKEY_HTTP_PORT",
        description="Port to listen on",
    )
    plan_limit: Duration = Field(
        default=timedelta(milliseconds=1500),
        validation_alias="TWOKEY_PLAN_LIMIT",
        description="How long a plan may look at a database before the ack",
    )
    people_cache: Duration = Field(
        default=timedelta(seconds=30),
        validation_alias="TWOKEY_PEOPLE_CACHE",
        description="How long Slack's word about a person is believed; at most 60s",
    )
    outbox_give_up: Duration = Field(
        default=timedelta(days=3),
        validation_alias="TWOKEY_OUTBOX_GIVE_UP",
        description="How long a message is tried before it is put aside as dead",
    )
    token_ttl: Duration = Field(
        default=timedelta(hours=8),
        validation_alias="TWOKEY_TOKEN_TTL",
        description="How long a personal token lives unless its owner says otherwise; at most 7d",
    )
    url: str = Field(
        default="http://127.0.0.1:8080",
        validation_alias="TWOKEY_URL",
        description="Where `twokey request` and the like find Twokey",
    )
    token: SecretStr | None = Field(
        default=None,
        validation_alias="TWOKEY_TOKEN",
        description="Personal token of who uses `twokey request` and the like: /db token makes one",
    )
    form_plan_limit: Duration = Field(
        default=timedelta(seconds=20),
        validation_alias="TWOKEY_FORM_PLAN_LIMIT",
        description="How long a form may look at a target, as its window shows that it does",
    )
    stop_limit: Duration = Field(
        default=timedelta(seconds=25),
        validation_alias="TWOKEY_STOP_LIMIT",
        description="How long a stop waits for work in hand",
    )
    runs_at_once: int = Field(
        default=2,
        ge=1,
        le=64,
        validation_alias="TWOKEY_RUNS_AT_ONCE",
        description="Runs of one worker at a time",
    )
    worker_lost_after: Duration = Field(
        default=timedelta(seconds=60),
        validation_alias="TWOKEY_WORKER_LOST_AFTER",
        description="Silence after which a worker's runs are given to another; at least 2s",
    )
    alertmanager_token: SecretStr | None = Field(
        default=None,
        validation_alias="TWOKEY_ALERTMANAGER_TOKEN",
        description="Token of who may POST /alerts/alertmanager, 16 characters or more; unset: off",
    )
    alertmanager_database: str = Field(
        default="",
        validation_alias="TWOKEY_ALERTMANAGER_DATABASE",
        description="Database of the inventory for Alertmanager's alerts that name none",
    )
    slack_bot_token: SecretStr | None = Field(
        default=None, validation_alias="SLACK_BOT_TOKEN", description="Bot token, xoxb-…"
    )
    slack_app_token: SecretStr | None = Field(
        default=None,
        validation_alias="SLACK_APP_TOKEN",
        description="App token, xapp-…; set: Socket Mode",
    )
    slack_signing_secret: SecretStr | None = Field(
        default=None,
        validation_alias="SLACK_SIGNING_SECRET",
        description="Signing secret; set: HTTP",
    )
    slack_signing_secret_previous: SecretStr | None = Field(
        default=None,
        validation_alias="SLACK_SIGNING_SECRET_PREVIOUS",
        description="The signing secret before, during a rotation",
    )
    slack_api_url: str = Field(
        default="https://slack.com/api/",
        validation_alias="SLACK_API_URL",
        description="Base of Slack's Web API",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _followed(cls, value: object, info: ValidationInfo) -> object:
        """Instead of a secret, what `env:NAME` or `file:PATH` refers to."""
        if not isinstance(value, str | SecretStr) or info.field_name not in secret_fields():
            return value
        given = value if isinstance(value, SecretStr) else SecretStr(value)
        return secret_of(given, folder=Path.cwd(), environ=os.environ)

    @field_validator("store", "store_owner")
    @classmethod
    def _leads_to_the_primary(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None and (why := objection(dsn.get_secret_value())):
            raise ValueError(why)
        return dsn

    @field_validator("vote_key", "vote_key_previous")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < _KEY_CHARS_MIN:
            raise ValueError(f"needs at least {_KEY_CHARS_MIN} characters")
        return key

    @field_validator("alertmanager_token")
    @classmethod
    def _not_guessed(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < _TOKEN_CHARS_MIN:
            raise ValueError(f"needs at least {_TOKEN_CHARS_MIN} characters")
        return token

    @field_validator("people_cache")
    @classmethod
    def _fresh_enough(cls, limit: timedelta) -> timedelta:
        if not timedelta(0) <= limit <= timedelta(seconds=60):
            raise ValueError("must be between 0s and 60s, so that a removed approver stays removed")
        return limit

    @field_validator("token_ttl")
    @classmethod
    def _short_lived(cls, limit: timedelta) -> timedelta:
        if not timedelta(minutes=1) <= limit <= timedelta(days=7):
            raise ValueError("must be between 1m and 7d")
        return limit

    @field_validator("plan_limit", "form_plan_limit", "outbox_give_up", "stop_limit")
    @classmethod
    def _positive(cls, limit: timedelta) -> timedelta:
        if limit <= timedelta(0):
            raise ValueError("must be longer than nothing")
        return limit

    @field_validator("worker_lost_after")
    @classmethod
    def _patient_enough(cls, limit: timedelta) -> timedelta:
        if limit < timedelta(seconds=2):
            raise ValueError("must be 2s or longer, or a busy worker is taken for a dead one")
        return limit

    @field_validator("url")
    @classmethod
    def _is_place(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("must start with https:// (http:// on this machine)")
        return url.rstrip("/")

    @field_validator("slack_api_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("must start with https:// (http:// for a stand-in on this machine)")
        return url if url.endswith("/") else f"{url}/"

    @field_validator("home")
    @classmethod
    def _expanded(cls, home: Path) -> Path:
        return home.expanduser().absolute()


@cache
def secret_fields() -> frozenset[str]:
    """The fields that hold a secret, or a reference to one."""
    return frozenset(
        name
        for name, field in Settings.model_fields.items()
        if field.annotation is SecretStr or SecretStr in get_args(field.annotation)
    )


def known_names() -> dict[str, str]:
    """Every name of the environment that we read, with what it is for."""
    return {
        str(field.validation_alias): str(field.description or "")
        for field in Settings.model_fields.values()
    }


def check_names(environ: Mapping[str, str]) -> None:
    """Refuse a TWOKEY_ name that nobody reads.

    Raises:
        BadInputError: a name is misspelt; says the nearest one that exists.
    """
    known = [name for name in known_names() if name.startswith("TWOKEY_")]
    # pydantic-settings ignores a misspelt top-level name even with extra="forbid".
    for name in sorted(environ):
        if name.startswith("TWOKEY_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            raise BadInputError(
                f"Nothing reads the setting {name}.",
                next_step=f"Did you mean {near[0]}?"
                if near
                else f"Known settings: {', '.join(sorted(known))}.",
            )


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        BadInputError: a value is wrong, or a TWOKEY_ name is misspelt. Values of secrets
            are not repeated.
    """
    check_names(os.environ)
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ")
        raise BadInputError(
            f"The setting {name} cannot be used: {reason}.",
            next_step=f"{name}: {known_names().get(name, 'see the README')}. Mend it, start again.",
        ) from None
    remember_secrets(getattr(settings, name) for name in secret_fields())
    return settings
