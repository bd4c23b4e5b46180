"""`POST /alerts/alertmanager`: alerts of an Alertmanager or a Grafana, told like our own.

Alertmanager sends again what gets a 5xx, and gives up on a 4xx: so what is wrong with what was
sent is a 4xx, and says what to set; what is wrong here is a 503.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

from aiohttp import web
from pydantic import SecretStr, ValidationError

from approvals.words import BadInputError
from bot.alertmanager_body import DATABASE_LABELS, Webhook, groups_of
from bot.foreign_alerts import sweep, take_in
from bot.inventory import Inventory
from bot.metrics import Metrics
from bot.settings import Settings
from jobs.away import in_rounds, is_away
from store.connect import Store

log: Final = logging.getLogger("twokey.alertmanager")

PATH: Final = "/alerts/alertmanager"
SECONDS_MAX: Final = 8.0  # Alertmanager waits ten
SWEEP_SECONDS: Final = 30.0
_LOST_MAX: Final = 5
_HEADERS: Final = MappingProxyType({"Cache-Control": "no-store"})


class _Refused(Exception):  # noqa: N818 - an answer
    """What is said instead of a 200."""

    def __init__(self, status: int, why: str, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.status = status
        self.why = why
        self.body = {"ok": False, "problem": problem, "next_step": next_step}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager:
    """Takes webhooks in. Without a token there is no such door."""

    token: SecretStr | None
    fallback: str  # the database of alerts that name none, or ''
    inventory: Inventory
    store: Store
    metrics: Metrics
    clock: Callable[[], datetime]

    def routes(self) -> list[web.RouteDef]:
        """The door."""
        return [web.post(PATH, self.handle)]

    async def run(self, stop: asyncio.Event) -> None:
        """Look after what was taken in, until `stop` is set."""
        await in_rounds(stop, self._round)

    async def _round(self) -> float:
        async with asyncio.timeout(SWEEP_SECONDS), self.store.begin() as conn:
            await sweep(conn, self.clock())
        return SWEEP_SECONDS

    async def handle(self, request: web.Request) -> web.Response:
        """The answer to a webhook, whatever it is."""
        try:
            with self.metrics.ack("alertmanager"):
                self._admit(request)
                body = await self._taken(await _read(request))
        except _Refused as refused:
            self.metrics.refused("alertmanager", refused.why)
            log.warning("A webhook of Alertmanager's was refused: %s.", refused.why)
            headers = dict(_HEADERS)
            if refused.status == web.HTTPUnauthorized.status_code:
                headers["WWW-Authenticate"] = "Bearer"
            return web.json_response(refused.body, status=refused.status, headers=headers)
        except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
            return self._failed(error)
        return web.json_response(body, headers=dict(_HEADERS))

    def _admit(self, request: web.Request) -> None:
        if self.token is None:
            raise _Refused(
                404, "off", "Alerts of others are not taken in here.",
                "Set TWOKEY_ALERTMANAGER_TOKEN, and give Alertmanager the same token.",
            )  # fmt: skip
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        wanted = self.token.get_secret_value().encode()
        sent = given.strip().encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(sent, wanted) or scheme.casefold() != "bearer":
            raise _Refused(
                401, "signature", "The token is missing or is not the one that is set.",
                "Send it as `Authorization: Bearer`: http_config.authorization in Alertmanager.",
            )  # fmt: skip

    async def _taken(self, raw: bytes) -> Mapping[str, Any]:
        now = self.clock()
        groups, lost = groups_of(
            _parsed(raw), self.inventory.databases, fallback=self.fallback, now=now
        )
        async with asyncio.timeout(SECONDS_MAX), self.store.begin() as conn:
            for group in sorted(groups, key=lambda each: each.key):
                channel = self.inventory.databases[group.database].channel
                await take_in(conn, group, channel=channel, now=now)
        if lost:
            # The others are told: an alert is not kept back for another's missing label.
            shown = ", ".join(lost[:_LOST_MAX])
            raise _Refused(
                422, "database", f"Of no database of the inventory: {shown}.",
                f"Give these alerts a label {' or '.join(DATABASE_LABELS)} with the name of one"
                " of the inventory, or set TWOKEY_ALERTMANAGER_DATABASE for all without it.",
            )  # fmt: skip
        return {"ok": True, "firing": sum(len(group.firing) for group in groups)}

    def _failed(self, error: Exception) -> web.Response:
        reference = uuid4().hex[:8]
        is_short = isinstance(error, TimeoutError) or is_away(error)
        log.error(
            "A webhook of Alertmanager's could not be taken in (id %s).", reference,
            exc_info=None if is_short else error,
        )  # fmt: skip
        self.metrics.broke("alertmanager")
        body = {"ok": False, "problem": "It could not be stored.", "id": reference,
                "next_step": "Send it again in a moment."}  # fmt: skip
        return web.json_response(body, status=503 if is_short else 500, headers=dict(_HEADERS))


def receiver(
    settings: Settings,
    inventory: Inventory,
    *,
    store: Store,
    metrics: Metrics,
    clock: Callable[[], datetime],
) -> Alertmanager:
    """The door, as the settings want it.

    Raises:
        BadInputError: the database for alerts without one is not in the inventory.
    """
    fallback = settings.alertmanager_database
    if fallback and fallback not in inventory.databases:
        raise BadInputError(
            f"TWOKEY_ALERTMANAGER_DATABASE is {fallback!r}, which is not in the inventory.",
            next_step=f"Name one of these: {', '.join(sorted(inventory.databases))}.",
        )
    return Alertmanager(
        token=settings.alertmanager_token,
        fallback=fallback,
        inventory=inventory,
        store=store,
        metrics=metrics,
        clock=clock,
    )


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _Refused(
            413, "too_large", "That is more than is taken in at once.",
            "Set max_alerts in Alertmanager's webhook_config, such as 100.",
        ) from None  # fmt: skip


def _parsed(raw: bytes) -> Webhook:
    try:
        return Webhook.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        # Where and what kind alone: what was sent is repeated nowhere.
        raise _Refused(
            400, "input", f"This is no webhook of Alertmanager's: {where} ({first['type']}).",
            "Send version 4 of its webhook, as webhook_configs does.",
        ) from None  # fmt: skip
