"""What Alertmanager (or Grafana) sends, as alerts of databases of the inventory. Pure.

The form is version 4 of Alertmanager's webhook; Grafana sends the same with a version of its
own. What we do not know is left out, what we know must be right. Every text is somebody
else's: it is bounded here, and escaped where it is drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from store.redact import redact

DATABASE_LABELS: Final = ("twokey_database", "database")
ALERTS_MAX: Final = 200
_SENT_MAX: Final = 5000
_LABELS_MAX: Final = 100
_NAME_CHARS_MAX: Final = 200
_TEXT_CHARS_MAX: Final = 2000
_LINK_CHARS_MAX: Final = 1500
_ABOUT_MAX: Final = 6
# What a page's severity is called elsewhere; everything else is a warning.
_CRITICAL: Final = frozenset(
    {"critical", "page", "error", "emergency", "fatal", "disaster", "high", "p1", "sev1"}
)
_KNOWN: Final = frozenset({"alertname", "severity", *DATABASE_LABELS})
_OLDEST: Final = timedelta(days=400)


def _clean(value: object) -> object:
    """PostgreSQL keeps every character but this one."""
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


_Text = Annotated[str, BeforeValidator(_clean)]
_Texts = Annotated[Mapping[_Text, _Text], Field(max_length=_LABELS_MAX)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class SentAlert(_Model):
    """One alert of a webhook. While it fires, its end is the year 1: Go's zero."""

    status: Literal["firing", "resolved"]
    labels: _Texts
    annotations: _Texts = Field(default_factory=dict)
    starts_at: Annotated[AwareDatetime, Field(alias="startsAt")]
    fingerprint: Annotated[_Text, Field(max_length=_NAME_CHARS_MAX)] = ""


class Webhook(_Model):
    """A group of alerts. Its own `status` says nothing of any single one of them."""

    version: Literal["4", "1"]  # Alertmanager's, Grafana's
    group_key: Annotated[_Text, Field(alias="groupKey", min_length=1, max_length=_TEXT_CHARS_MAX)]
    truncated_alerts: Annotated[int, Field(alias="truncatedAlerts", ge=0)] = 0
    alerts: Annotated[tuple[SentAlert, ...], Field(max_length=_SENT_MAX)]
    common_annotations: Annotated[_Texts, Field(alias="commonAnnotations")] = Field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignAlert:
    """An alert as it is stored: `label` is its fingerprint, `about` tells people which it is."""

    name: str
    label: str
    about: str
    severity: str
    problem: str
    next_step: str
    runbook: str
    fired_at: datetime
    is_firing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a webhook says of one database. `left_out`: alerts that were not sent along."""

    database: str
    key: str
    left_out: int
    alerts: tuple[ForeignAlert, ...]

    @property
    def firing(self) -> tuple[ForeignAlert, ...]:
        """Those that fire."""
        return tuple(each for each in self.alerts if each.is_firing)


def groups_of(
    sent: Webhook, databases: Collection[str], *, fallback: str, now: datetime
) -> tuple[Sequence[Group], Sequence[str]]:
    """The alerts by database, and the names of those that belong to none.

    A group of Alertmanager's may be about several databases: each has an incident of its own.
    """
    of: dict[str, list[ForeignAlert]] = {}
    lost: set[str] = set()
    for alert in sent.alerts:
        database = _database(alert.labels, databases, fallback)
        if database is None:
            lost.add(_name(alert.labels))
        else:
            of.setdefault(database, []).append(_foreign(alert, sent, database, now))
    groups = [
        Group(
            database=database,
            key=f"{database}:{sent.group_key}",
            left_out=sent.truncated_alerts + max(0, _firing(alerts) - ALERTS_MAX),
            alerts=tuple(_bounded(alerts)),
        )
        for database, alerts in of.items()
    ]
    return groups, sorted(lost)


def _database(labels: Mapping[str, str], databases: Collection[str], fallback: str) -> str | None:
    """The database of an alert: a label names it, or the fallback takes what has no such label.

    A label that names no database of ours is PostgreSQL's own word for a database in a cluster,
    as postgres_exporter has it: it decides nothing.
    """
    named = (labels[label] for label in DATABASE_LABELS if label in labels)
    return next((name for name in named if name in databases), fallback or None)


def _firing(alerts: Sequence[ForeignAlert]) -> int:
    return sum(each.is_firing for each in alerts)


def _bounded(alerts: Sequence[ForeignAlert]) -> list[ForeignAlert]:
    """All that ended, and as many that fire as an incident holds, the worst first."""
    once = {each.label: each for each in alerts}
    firing = sorted(
        (each for each in once.values() if each.is_firing),
        key=lambda each: (each.severity != "critical", each.fired_at, each.label),
    )
    return [*(each for each in once.values() if not each.is_firing), *firing[:ALERTS_MAX]]


def _foreign(alert: SentAlert, sent: Webhook, database: str, now: datetime) -> ForeignAlert:
    said = {**sent.common_annotations, **alert.annotations}
    severity = alert.labels.get("severity", "").casefold()
    runbook = _said(said, "runbook_url", "runbook")[:_LINK_CHARS_MAX]
    return ForeignAlert(
        name=_name(alert.labels),
        label=alert.fingerprint or _fingerprint(alert.labels),
        about=_about(alert.labels),
        severity="critical" if severity in _CRITICAL else "warning",
        problem=_problem(said, alert.labels),
        next_step=_said(said, "action", "next_step", "resolution")
        or f"See {'its runbook and ' if runbook else ''}how the server is: /db health {database}",
        runbook=runbook,
        fired_at=_since(alert.starts_at, now),
        is_firing=alert.status == "firing",
    )


def _name(labels: Mapping[str, str]) -> str:
    return redact(labels.get("alertname", "") or "Alert")[:_NAME_CHARS_MAX]


def _about(labels: Mapping[str, str]) -> str:
    told = [f"{name}={value}" for name, value in sorted(labels.items()) if name not in _KNOWN]
    return redact(", ".join(told[:_ABOUT_MAX]))[:_NAME_CHARS_MAX]


def _problem(said: Mapping[str, str], labels: Mapping[str, str]) -> str:
    summary, description = _said(said, "summary"), _said(said, "description", "message")
    both = [each for each in dict.fromkeys((summary, description)) if each]
    return "\n".join(both)[:_TEXT_CHARS_MAX] or f"{_name(labels)} fires; it does not say more."


def _said(said: Mapping[str, str], *names: str) -> str:
    found = next((said[name].strip() for name in names if said.get(name, "").strip()), "")
    return redact(found[:_TEXT_CHARS_MAX])


def _since(starts_at: datetime, now: datetime) -> datetime:
    """Since when, as far as a clock elsewhere can be believed."""
    oldest = now - _OLDEST
    if starts_at.replace(tzinfo=None) < oldest.replace(tzinfo=None) - timedelta(days=1):
        return oldest
    return min(max(starts_at, oldest), now)


def _fingerprint(labels: Mapping[str, str]) -> str:
    """What identifies an alert where its sender does not say: its labels, as in Alertmanager."""
    return hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16]


SEVERITIES: Final[Mapping[str, int]] = MappingProxyType({"warning": 0, "critical": 1})
