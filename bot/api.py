"""The HTTP API: what Slack's commands and buttons do, for programs and terminals.

A bearer token says who calls. A decision says what its sender was shown, and is compared with
what stands, as a button is. Everything is decided by the same code as in Slack.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final, TypeVar, assert_never
from uuid import uuid4

from aiohttp import web
from pydantic import BaseModel

from approvals.bookkeeping import no_such
from approvals.calls import Decision
from approvals.records import RequestRecord
from approvals.refusals import refuse
from approvals.tokens import Token
from approvals.words import (
    BadInputError,
    Care,
    Door,
    ExplainedError,
    Person,
    RefusedError,
    RequestId,
    State,
    Verdict,
    Why,
)
from bot import api_answers as answers
from bot.api_bodies import (
    BODY_BYTES_MAX,
    AskBody,
    DecisionBody,
    MalformedError,
    QueryBody,
    Wanted,
    call_of,
    filter_of,
    fingerprint,
    idempotency_key,
    limit_of,
    parsed,
    seen_in,
)
from bot.api_care import with_care
from bot.api_guard import Guard, LimitedError, admit
from bot.api_problems import HttpError, explained
from bot.deciding import Caller
from bot.desk import Desk
from bot.listeners.guard import ANSWER_SECONDS_MAX
from bot.turns import turn
from postgres.errors import PostgresError
from store.deliveries import reserved

log: Final = logging.getLogger("twokey.api")

_ID: Final = r"(?P<id>[0-9]{1,18})"
_HEADERS: Final = MappingProxyType(
    {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
)
_FILTERS: Final = frozenset({"waiting", "database", "limit"})
_DOORS: Final = MappingProxyType({"api": Door.API, "cli": Door.CLI})
_Body = TypeVar("_Body", bound=BaseModel)

Answer = tuple[int, answers.Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of somebody whom we know."""

    caller: Caller
    request: web.Request
    path: Mapping[str, str]
    raw: bytes
    key: str

    @property
    def id(self) -> RequestId:
        """Which request it is about."""
        return RequestId(int(self.path["id"]))


@dataclass(frozen=True, slots=True)
class Api:
    """Answers everything below /api/."""

    desk: Desk
    guard: Guard = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "guard", Guard(desk=self.desk))

    def routes(self) -> list[web.RouteDef]:
        """One way in, so that also what does not exist is answered in JSON."""
        return [web.route("*", "/api/{tail:.*}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """The answer to any call, whatever it is."""
        headers = dict(_HEADERS)
        try:
            with self.desk.metrics.ack("api"):
                async with turn(seconds_max=ANSWER_SECONDS_MAX):
                    status, body = await self._answer(request)
        except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
            status, body = self._failure(error, headers)
        return web.json_response(body, status=status, headers=headers)

    async def _answer(self, request: web.Request) -> Answer:
        work, path = _routed(request)
        token = await self.guard.token(request.headers.get("Authorization"), request.remote)
        try:
            status, body = await self._worked(token, request, work, path)
        except (ExplainedError, PostgresError):
            self.guard.failed(token)
            raise
        if status >= 400:  # noqa: PLR2004 - where HTTP's refusals begin
            self.guard.failed(token)
        return status, body

    async def _worked(
        self, token: Token, request: web.Request, work: Work, path: Mapping[str, str]
    ) -> Answer:
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        door = _DOORS.get(request.headers.get("Twokey-Door", "api"), Door.API)
        raw = await _read(request)
        caller = await self.guard.caller(token, door=door, delivery=f"api:{key}" if key else "")
        return await work(
            self.desk, Call(caller=caller, request=request, path=path, raw=raw, key=key)
        )

    def _failure(self, error: Exception, headers: dict[str, str]) -> Answer:
        status, body = explained(error)
        if status == 500:  # noqa: PLR2004
            reference = uuid4().hex[:8]
            log.error("A call of the API failed, id %s.", reference, exc_info=error)
            self.desk.metrics.broke("api")
            said = f"Something broke on our side (id {reference})."
            body = answers.problem(
                "broken",
                f"{said} Whether it was stored is not certain.",
                "GET /api/requests says what stands; tell the people who run Twokey the id.",
            )
        if status == 401:  # noqa: PLR2004
            headers["WWW-Authenticate"] = 'Bearer realm="twokey"'
        if isinstance(error, LimitedError):
            headers["Retry-After"] = str(error.seconds)
        if isinstance(error, HttpError) and error.allow:
            headers["Allow"] = error.allow
        self.desk.metrics.refused(Door.API, str(body["why"]))
        return status, body


Work = Callable[[Desk, Call], Awaitable[Answer]]


async def _ask(desk: Desk, call: Call) -> Answer:
    body = _taken(call, AskBody)
    asked = call_of(body, desk.operations)
    if asked.operation.is_query(asked.params):
        raise BadInputError(
            f"{asked.operation.name} only reads: nobody has to agree to it.",
            next_step="Ask it with POST /api/queries.",
        )
    if asked.database:
        desk.inventory.database(asked.database)
    await _once(desk, call, body)
    # Where no database has a channel, the card goes to whoever asks.
    decision = await desk.ask(asked, call.caller, channel=call.caller.person.slack_user)
    status, answer = answers.decided(decision)
    return (201 if decision.ok and not decision.noop else status), answer


async def _query(desk: Desk, call: Call) -> Answer:
    asked = call_of(_taken(call, QueryBody), desk.operations)
    if not asked.operation.is_query(asked.params):
        raise BadInputError(
            f"{asked.operation.name} changes something, so others must agree.",
            next_step="Ask for it with POST /api/requests.",
        )
    return 200, answers.answered(await desk.planner.answer(asked))


async def _list(desk: Desk, call: Call) -> Answer:
    query = call.request.query
    if strange := sorted(set(query) - _FILTERS):
        raise MalformedError(
            f"Requests cannot be listed by {strange[0][:40]!r}.",
            next_step=f"There are {', '.join(sorted(_FILTERS))}.",
        )
    wanted = filter_of(query.get("waiting", ""))
    limit = limit_of(query.get("limit", "20"))
    name = query.get("database")
    database = desk.inventory.database(name).name if name else None
    found = await _wanted(desk, call.caller.person, wanted, database=database, limit=limit)
    return 200, {"requests": [answers.brief(record) for record in found]}


async def _wanted(
    desk: Desk, person: Person, wanted: Wanted, *, database: str | None, limit: int
) -> Sequence[RequestRecord]:
    """Those that App Home would show."""
    match wanted:
        case "me":
            listed = await desk.inbox.waiting_for(person, database=database, limit=limit)
            return listed.records
        case "review":
            listed = await desk.inbox.owed_by(person, database=database, limit=limit)
            return listed.records
        case "mine":
            return await desk.inbox.asked_by(person, database=database, limit=limit)
        case "open" | "":
            return await desk.approvals.recent(
                database=database, open_only=wanted == "open", limit=limit
            )
        case _:
            assert_never(wanted)


async def _show(desk: Desk, call: Call) -> Answer:
    record = await _found(desk, call)
    if Care.READ in record.care:
        # The answer is the whole plan; nothing that decides anything changes by it.
        await desk.careful.opened_whole(record, call.caller.person.id)
    return 200, answers.whole(record)


async def _vote(verdict: Verdict, desk: Desk, call: Call) -> Answer:
    body = _taken(call, DecisionBody)
    seen = seen_in(body)
    record = await _found(desk, call)
    await _once(desk, call, body)

    async def deciding(care: frozenset[Care], keep: bool) -> Decision:  # noqa: FBT001 - one use
        return await desk.decider.cast(
            call.caller, verdict, body.reason, record=record, seen=seen, care=care, keep=keep
        )

    if verdict is not Verdict.APPROVE:
        return answers.decided(await deciding(frozenset(), True))
    return answers.decided(await with_care(desk, call.caller, record, body, deciding))


async def _withdraw(desk: Desk, call: Call) -> Answer:
    body = _taken(call, DecisionBody)
    record = await _found(desk, call)
    await _once(desk, call, body)
    return answers.decided(await desk.decider.withdraw(call.caller, record))


async def _cancel(desk: Desk, call: Call) -> Answer:
    body = _taken(call, DecisionBody)
    record = await _found(desk, call)
    await _once(desk, call, body)
    if record.state is not State.EXECUTING:
        return answers.decided(await desk.decider.cancel(call.caller, record.id))
    done = await desk.stopping.stop(call.caller, record)
    return answers.told(
        record, noop=not done.changed, problem=done.problem, next_step=f"{done.next_step}."
    )


async def _pause(desk: Desk, call: Call, *, go_on: bool) -> Answer:
    body = _taken(call, DecisionBody)
    record = await _found(desk, call)
    await _once(desk, call, body)
    work = desk.pausing.resume if go_on else desk.pausing.pause
    done = await work(call.caller, record)
    return answers.told(
        record, noop=not done.changed, problem=done.problem, next_step=done.next_step
    )


async def _break_glass(desk: Desk, call: Call) -> Answer:
    body = _taken(call, DecisionBody)
    seen = seen_in(body)
    record = await _found(desk, call)
    await _once(desk, call, body)

    async def deciding(care: frozenset[Care], keep: bool) -> Decision:  # noqa: FBT001 - one use
        return await desk.decider.break_glass(
            call.caller, record.id, body.reason, care=care, seen_plan=seen.plan_hash, keep=keep
        )

    return answers.decided(await with_care(desk, call.caller, record, body, deciding))


async def _review(desk: Desk, call: Call) -> Answer:
    body = _taken(call, DecisionBody)
    record = await _found(desk, call)
    await _once(desk, call, body)
    return answers.decided(await desk.decider.review(call.caller, record.id, body.reason))


async def _no_verdict(_: Desk, call: Call) -> Answer:
    refusal = refuse(Why.VERDICT, call.id)
    raise RefusedError(refusal.problem, next_step=refusal.next_step, why=refusal.why)


# Each path with what it does by method; a method that is not here changes nothing, ever.
_ROUTES: Final[tuple[tuple[re.Pattern[str], Mapping[str, Work]], ...]] = tuple(
    (re.compile(path), MappingProxyType(methods))
    for path, methods in (
        (r"/api/requests", {"POST": _ask, "GET": _list}),
        (r"/api/queries", {"POST": _query}),
        (rf"/api/requests/{_ID}", {"GET": _show}),
        (rf"/api/requests/{_ID}/approve", {"POST": partial(_vote, Verdict.APPROVE)}),
        (rf"/api/requests/{_ID}/deny", {"POST": partial(_vote, Verdict.DENY)}),
        (rf"/api/requests/{_ID}/cancel", {"POST": _cancel}),
        (rf"/api/requests/{_ID}/pause", {"POST": partial(_pause, go_on=False)}),
        (rf"/api/requests/{_ID}/resume", {"POST": partial(_pause, go_on=True)}),
        (rf"/api/requests/{_ID}/withdraw", {"POST": _withdraw}),
        (rf"/api/requests/{_ID}/break-glass", {"POST": _break_glass}),
        (rf"/api/requests/{_ID}/review", {"POST": _review}),
        (rf"/api/requests/{_ID}/[^/]{{1,40}}", {"POST": _no_verdict}),
    )
)


def _routed(request: web.Request) -> tuple[Work, Mapping[str, str]]:
    for pattern, methods in _ROUTES:
        found = pattern.fullmatch(request.path)
        if found is None:
            continue
        work = methods.get(request.method)
        if work is None:
            allow = ", ".join(methods)
            raise HttpError(
                405, "method", f"{request.method[:16]} does nothing here.",
                f"It takes {allow}.", allow=allow,
            )  # fmt: skip
        return work, found.groupdict()
    raise HttpError(404, "path", "There is nothing at this path.", "docs/api.md lists the paths.")


async def _read(request: web.Request) -> bytes:
    if request.method == "GET":
        return b""
    kind = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(
            415, "content_type", "The body is not said to be JSON.",
            "Send it with Content-Type: application/json.",
        )  # fmt: skip
    raw = await request.content.read(BODY_BYTES_MAX + 1)
    while len(raw) <= BODY_BYTES_MAX and not request.content.at_eof():
        raw += await request.content.read(BODY_BYTES_MAX + 1 - len(raw))
    if len(raw) > BODY_BYTES_MAX:
        raise HttpError(
            413, "too_large", f"The body has more than {BODY_BYTES_MAX} bytes.", "Say it shorter."
        )
    return raw


def _taken(call: Call, model: type[_Body]) -> _Body:
    """The body, which must not reach beyond its sender."""
    body = parsed(call.raw, model)
    said = body.model_dump(include={"as_user", "set_policy"})
    admit(call.caller.person, as_user=said["as_user"], set_policy=said["set_policy"])
    return body


async def _once(desk: Desk, call: Call, body: BaseModel) -> None:
    """Let a key stand for one call only.

    Raises:
        HttpError: it came with something else before.
    """
    if not call.key:
        return
    says = fingerprint(call.request.method, call.request.path, body)
    name = f"api-key|{call.caller.person.id}|{call.key}"
    if await reserved(desk.store, name, says=says, at=desk.clock()) != says:
        raise HttpError(
            422, "idempotency", "This Idempotency-Key came before, with something else.",
            "Take a new key for a new call, and the same for the same.",
        )  # fmt: skip


async def _found(desk: Desk, call: Call) -> RequestRecord:
    record = await desk.approvals.load(call.id)
    if record is None:
        nobody = no_such(call.id)
        raise HttpError(404, str(Why.CLOSED), nobody.problem, "GET /api/requests lists them.")
    return record
