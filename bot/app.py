"""Wires everything together; nothing else does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import aiohttp
from slack_bolt import BoltResponse
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient

from approvals.in_force import Policies
from approvals.inbox import Inbox
from approvals.notices import Notices
from approvals.sealing import SecretBox
from approvals.second_factors import SecondFactors
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.tokens import Tokens
from approvals.words import BadInputError
from bot.background import Background
from bot.buttons import Seal
from bot.cards import Cards
from bot.charts import Charts
from bot.choices import Choices
from bot.desk import Desk
from bot.directs import Directs
from bot.edge import Gate
from bot.follow_ups import FollowUps
from bot.form_desk import FormDesk
from bot.homes import Homes
from bot.incidents import Incidents, IncidentSeal
from bot.inventory import Inventory
from bot.limits import limits_of
from bot.listeners import (
    actions,
    care,
    commands,
    events,
    follow_ups,
    forms,
    incidents,
    suggestions,
    views,
)
from bot.menus import Menus
from bot.metrics import Metrics
from bot.notices import Teller
from bot.outbox import Outbox, Pace
from bot.people import People
from bot.planning import Planner
from bot.policies import Groups, known, started
from bot.process import Identity, Twokey, utc_now
from bot.replies import Replies
from bot.settings import Settings
from bot.slack import SlackError, SlackRefusedError, call, open_session, web_client
from bot.storage import vote_keys
from bot.suggesting import Suggester
from bot.windows import Windows
from jobs.away import pause_seconds
from jobs.engine import PgQueue
from jobs.limits import Limits
from jobs.operation import Operation
from jobs.reader import Readers
from jobs.registry import load_operations
from jobs.worker import Worker
from store.connect import Store

log: Final = logging.getLogger("twokey")

READ_LIMIT: Final = timedelta(seconds=2)


@asynccontextmanager
async def assembled(
    settings: Settings, inventory: Inventory, *, store: Store, **more: Any
) -> AsyncIterator[Twokey]:
    """`build`, with an HTTP session that is closed at the end of the block."""
    async with open_session() as session:
        twokey = await build(settings, inventory, store=store, session=session, **more)
        try:
            yield twokey
        finally:
            await twokey.close()


async def build(
    settings: Settings,
    inventory: Inventory,
    *,
    store: Store,
    session: aiohttp.ClientSession,
    operations: Mapping[str, Operation] | None = None,
    clock: Callable[[], datetime] | None = None,
    pace: Pace | None = None,
    limits: Limits | None = None,
) -> Twokey:
    """Everything of a process, wired. Asks Slack once who we are, and waits for it if it is away.

    Raises:
        BadInputError: a token is missing or Slack does not take it, or the policy is wrong.
    """
    clock = clock or utc_now
    client = web_client(_bot_token(settings), base_url=settings.slack_api_url, session=session)
    identity = await who_we_are(client)
    ground = await _ground(
        settings, inventory, store=store, client=client, identity=identity, clock=clock
    )
    operations = operations if operations is not None else load_operations("commands")
    desk = _desk(ground, operations, Windows(client=client))
    background = Background(limit=settings.stop_limit)
    homes = Homes(desk, clock=clock)
    charts = Charts(client=client, clock=clock)
    return Twokey(
        settings=settings,
        store=store,
        identity=identity,
        approvals=ground.approvals,
        desk=desk,
        bolt=bolt_app(
            desk, identity=identity, client=client, session=session, background=background,
            homes=homes, charts=charts,
        ),
        client=client,
        outbox=Outbox(
            store=store, client=client, clock=clock, meter=desk.metrics,
            draw=Directs(
                cards=desk.cards, incidents=desk.incidents, store=store, client=client
            ),
            pace=pace or Pace(give_up=settings.outbox_give_up),
            charts=charts,
        ),
        worker=_worker(ground, operations, limits or limits_of(settings)),
        teller=_teller(ground),
        homes=homes,
        background=background,
        metrics=desk.metrics,
        readers=ground.readers,
        gate=_gate(settings),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What the desk, the worker and the loops stand on."""

    settings: Settings
    inventory: Inventory
    store: Store
    clock: Callable[[], datetime]
    policies: Policies
    people: People
    approvals: Approvals
    readers: Readers
    seal: Seal
    choices: Choices
    suggester: Suggester
    incident_seal: IncidentSeal
    keys: VoteKeys


async def _ground(
    settings: Settings,
    inventory: Inventory,
    *,
    store: Store,
    client: AsyncWebClient,
    identity: Identity,
    clock: Callable[[], datetime],
) -> _Ground:
    current, previous = vote_keys(settings)
    keys = VoteKeys(current=current, previous=previous)
    policies = Policies(
        store=store, keys=keys, clock=clock, file=inventory.policy, known=known(inventory)
    )
    policy = await started(policies)
    groups = Groups(inventory.groups, policy)
    people = People(client, team=identity.team, groups=groups, fresh_for=settings.people_cache)
    return _Ground(
        settings=settings,
        inventory=inventory,
        store=store,
        clock=clock,
        people=people,
        approvals=Approvals(
            store=store,
            keys=keys,
            queue=PgQueue(store),
            clock=clock,
            policy=policy,
            directory=people,
            policies=policies,
            heard=groups.use,
        ),
        policies=policies,
        readers=Readers(statement_timeout=READ_LIMIT),
        seal=Seal([key for key in (current, previous) if key]),
        choices=Choices([key for key in (current, previous) if key]),
        suggester=Suggester([key for key in (current, previous) if key]),
        incident_seal=IncidentSeal([key for key in (current, previous) if key]),
        keys=keys,
    )


def _desk(ground: _Ground, operations: Mapping[str, Operation], windows: Windows) -> Desk:
    return Desk(
        approvals=ground.approvals,
        people=ground.people,
        planner=Planner(
            inventory=ground.inventory,
            readers=ground.readers,
            store=ground.store,
            clock=ground.clock,
            limit=ground.settings.plan_limit,
            patience=ground.settings.form_plan_limit,
            policies=ground.policies,
        ),
        inventory=ground.inventory,
        operations=operations,
        cards=Cards(
            approvals=ground.approvals,
            seal=ground.seal,
            menus=Menus(choices=ground.choices, operations=operations),
            suggester=ground.suggester,
        ),
        seal=ground.seal,
        store=ground.store,
        metrics=Metrics(),
        clock=ground.clock,
        tokens=Tokens(
            store=ground.store,
            keys=ground.keys,
            clock=ground.clock,
            lifetime=ground.settings.token_ttl,
        ),
        factors=SecondFactors(store=ground.store, box=SecretBox(ground.keys), clock=ground.clock),
        suggester=ground.suggester,
        incidents=Incidents(
            store=ground.store,
            seal=ground.incident_seal,
            suggester=ground.suggester,
            operations=operations,
            client=windows.client,
            clock=ground.clock,
        ),
        windows=windows,
        inbox=Inbox(
            store=ground.store, keys=ground.keys, approvals=ground.approvals, clock=ground.clock
        ),
    )


def _teller(ground: _Ground) -> Teller:
    return Teller(
        approvals=ground.approvals,
        notices=Notices(store=ground.store, keys=ground.keys, clock=ground.clock),
        people=ground.people,
        clock=ground.clock,
    )


def _worker(ground: _Ground, operations: Mapping[str, Operation], limits: Limits) -> Worker:
    return Worker(
        store=ground.store,
        approvals=ground.approvals,
        directory=ground.people,
        operations=operations,
        databases=ground.inventory.databases,
        home=ground.settings.home,
        clock=ground.clock,
        limits=limits,
        policies=ground.policies,
    )


def bolt_app(
    desk: Desk,
    *,
    identity: Identity,
    client: AsyncWebClient,
    session: aiohttp.ClientSession,
    background: Background,
    homes: Homes | None = None,
    charts: Charts | None = None,
) -> AsyncApp:
    """Bolt with our listeners. The gate has checked the signature, Socket Mode needs none."""

    async def authorize(enterprise_id: str | None) -> AuthorizeResult:
        # Built from what we know since the start: no auth.test per request. Who comes from
        # another workspace is refused by `people`, with an answer; Bolt would answer through
        # a URL in the payload, before the ack.
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=identity.team,
            bot_token=client.token,
            bot_id=identity.bot_id,
            bot_user_id=identity.bot_user,
        )

    app = AsyncApp(
        # Ours has the token already; Bolt's own is used by nobody.
        client=web_client(None, base_url=client.base_url, session=session),
        authorize=authorize,
        request_verification_enabled=False,
        # Without it Bolt polls for the ack every 10 ms, and loses it when a listener raises.
        process_before_response=True,
    )
    replies = Replies(client, session, charts)
    commands.register(app, desk, replies=replies, background=background)
    suggestions.register(app, FormDesk(desk=desk), replies=replies, background=background)
    forms.register(app, FormDesk(desk=desk), replies=replies, background=background)
    follow_ups.register(app, FollowUps(desk=desk), replies=replies, background=background)
    incidents.register(app, desk, replies=replies, background=background)
    actions.register(app, desk, client=client, replies=replies, background=background)
    views.register(app, desk, replies=replies, background=background)
    care.register(app, desk, replies=replies, background=background)
    tabs = homes or Homes(desk, clock=desk.clock)
    events.register(app, desk, homes=tabs, background=background)

    @app.error
    async def failed(error: Exception) -> BoltResponse:
        # Listeners are guarded: what comes here is a payload that lacks what Slack always sends.
        reference = uuid4().hex[:8]
        log.error("A payload could not be read (id %s).", reference, exc_info=error)
        desk.metrics.broke("payload")
        return BoltResponse(status=400, body="")

    return app


async def who_we_are(client: AsyncWebClient) -> Identity:
    """Our workspace and account, as soon as Slack can be asked.

    Raises:
        BadInputError: Slack does not take the token.
    """
    failures = 0
    while True:
        try:
            data = await call(client.auth_test())
        except SlackRefusedError as error:
            raise BadInputError(
                f"Slack does not take SLACK_BOT_TOKEN: {error.error}.",
                next_step="Install the app in the workspace again and use its new bot token.",
            ) from error
        except SlackError as error:
            failures += 1
            log.warning("Slack does not say yet who we are: %s.", error)
            await asyncio.sleep(pause_seconds(failures))
        else:
            return Identity(
                team=data["team_id"], bot_id=data.get("bot_id", ""), bot_user=data["user_id"]
            )


def _bot_token(settings: Settings) -> str:
    if settings.slack_bot_token is None:
        raise BadInputError(
            "SLACK_BOT_TOKEN is not set.",
            next_step="Install the app of manifest.yml in Slack and set its bot token (xoxb-…).",
        )
    return settings.slack_bot_token.get_secret_value()


def _gate(settings: Settings) -> Gate | None:
    secrets: Sequence[str] = [
        secret.get_secret_value()
        for secret in (settings.slack_signing_secret, settings.slack_signing_secret_previous)
        if secret is not None
    ]
    return Gate(secrets) if settings.slack_signing_secret is not None else None
