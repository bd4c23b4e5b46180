"""What callers of the API say, checked before anything is done with it. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError

from approvals.calls import Seen
from approvals.plans import canonical
from approvals.words import BadInputError
from bot.blocks import unescape
from bot.command_text import Asked, parse, unknown, words
from jobs.operation import Operation

BODY_BYTES_MAX: Final = 64 * 1024
LISTED_MAX: Final = 100
# Which requests somebody may list: what they may approve, what they may review, what they
# asked for, what has not ended, or all.
Wanted = Literal["me", "review", "mine", "open", ""]
KEY_CHARS_MAX: Final = 200
_DEPTH_MAX: Final = 20
_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_LINE_ENDS: Final = frozenset("\n\r\t")
_REASON_CHARS_MAX: Final = 8000
_Body = TypeVar("_Body", bound=BaseModel)

Hash = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(strict=True, max_length=_REASON_CHARS_MAX)]


class _Base(BaseModel):
    """Nothing unknown is ignored: it could be what its sender thought most important."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    # Known only to be refused in their own words; see `bot.api_guard.admit`.
    as_user: Text | None = None
    set_policy: Any = None


class AskBody(_Base):
    """A change that is asked for, as it would be typed or as an operation with parameters."""

    command: Text | None = None
    operation: Text | None = None
    params: Mapping[str, Any] | None = None
    reason: Text = ""


class QueryBody(_Base):
    """A question."""

    command: Text


class DecisionBody(_Base):
    """A decision, and what its sender was shown when they took it."""

    plan_hash: Hash | None = None
    policy_hash: Hash | None = None
    step: Annotated[StrictInt, Field(ge=0, le=1000)] | None = None
    reason: Text = ""
    code: Annotated[str, StringConstraints(strict=True, max_length=16)] | None = None
    typed: Annotated[str, StringConstraints(strict=True, max_length=200)] | None = None


class MalformedError(BadInputError):
    """A body that is no JSON, or none of ours."""


def parsed(raw: bytes, model: type[_Body]) -> _Body:
    """The body as its model.

    Raises:
        MalformedError: it is no such thing.
    """
    try:
        data = json.loads(
            raw.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_without_doubles
        )
        _look_through(data, 0)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, _OddError) else "it cannot be read"
        raise MalformedError(
            f"The body is no JSON that can be taken: {said}.",
            next_step="Send one JSON object in UTF-8; docs/api.md has examples.",
        ) from None
    if not isinstance(data, dict):
        raise MalformedError(
            "The body is no JSON object.", next_step="Send one, as docs/api.md shows."
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _unlike(error, model) from None


def call_of(body: AskBody | QueryBody, operations: Mapping[str, Operation]) -> Asked:
    """The operation and its parameters that somebody means.

    Raises:
        BadInputError: there is no such operation, or a parameter is wrong.
    """
    if isinstance(body, QueryBody):
        return _typed(body.command, "", operations)
    if (body.command is None) == (body.operation is None):
        raise BadInputError(
            "It is not clear what is asked for.",
            next_step='Say either "command", or "operation" with "params".',
        )
    if body.command is None:
        return _named(body, operations)
    if body.params is not None:
        raise BadInputError(
            'A "command" has its parameters in it.', next_step='Leave "params" out.'
        )
    return _typed(body.command, body.reason, operations)


def idempotency_key(text: str | None) -> str:
    """The key that makes the same call one call; '' without one.

    Raises:
        MalformedError: it cannot be a key.
    """
    if text is None:
        return ""
    if not _KEY.fullmatch(text):
        raise MalformedError(
            f"An Idempotency-Key has 1 to {KEY_CHARS_MAX} visible ASCII characters.",
            next_step="Send a new random one with each decision, such as a UUID.",
        )
    return text


def fingerprint(method: str, path: str, body: BaseModel) -> str:
    """What a call says, as a hash. A second factor's code may be another one when repeated."""
    said = body.model_dump(mode="json", exclude={"code"})
    return hashlib.sha256(f"{method} {path}\n{canonical(said)}".encode()).hexdigest()


def seen_in(body: DecisionBody) -> Seen:
    """What the sender was shown.

    Raises:
        MalformedError: they do not say it.
    """
    match body:
        case DecisionBody(plan_hash=str(plan), policy_hash=str(policy), step=int(step)):
            return Seen(plan_hash=plan, policy_hash=policy, step=step)
        case _:
            raise MalformedError(
                "The body does not say what was seen.",
                next_step="Send plan_hash, policy_hash and step as "
                "GET /api/requests/<id> has them.",
            )


def filter_of(text: str) -> Wanted:
    """Which requests are wanted; '' for all.

    Raises:
        MalformedError: it is none of those that there are.
    """
    for known in get_args(Wanted):
        if text == known:
            return cast("Wanted", known)
    raise MalformedError(
        f"waiting={text[:20]!r} means nothing.", next_step="Say me, review, mine or open."
    )


def limit_of(text: str) -> int:
    """How many are wanted.

    Raises:
        MalformedError: it is no number, or too many.
    """
    number = int(text) if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) else 0
    if not 1 <= number <= LISTED_MAX:
        raise MalformedError(
            f"limit={text[:20]!r} cannot be.", next_step=f"Say a number from 1 to {LISTED_MAX}."
        )
    return number


class _OddError(ValueError):
    """JSON that we do not take; its text is for the caller."""


def _typed(command: str, reason: str, operations: Mapping[str, Operation]) -> Asked:
    # `words` undoes the escapes that Slack makes, and nobody has made any here.
    found = words(_escaped(command.strip()))
    if found and found[0].lower() == "/db":
        found = found[1:]
    if not found:
        raise BadInputError(
            "The command is empty.", next_step='Write it as after /db: "backup orders kind=full".'
        )
    name = found[0].lower()
    if name not in operations:
        raise unknown(found[0], operations)
    asked = parse(name, found[1:], operations)
    if not reason:
        return asked
    if asked.reason and asked.reason != reason:
        raise BadInputError("The reason is said twice, and not alike.", next_step="Say it once.")
    return _with_reason(asked, reason)


def _named(body: AskBody, operations: Mapping[str, Operation]) -> Asked:
    operation = operations.get((body.operation or "").lower())
    if operation is None:
        raise unknown(body.operation or "", operations)
    params = dict(body.params or {})
    if strange := sorted(params.keys() - operation.params.model_fields.keys()):
        raise BadInputError(
            f"{operation.name} has no parameter {strange[0]!r}.",
            next_step=f"It has {', '.join(operation.params.model_fields)}.",
        )
    try:
        values = operation.params.model_validate(params)
    except ValidationError as error:
        place, said = _first(error)
        raise BadInputError(
            f"{operation.name}: {place}: {said}.",
            next_step=f"GET /api/requests shows how others asked; /db help {operation.name} "
            "says what it takes.",
        ) from None
    return Asked(
        operation=operation,
        params=values,
        database=str(getattr(values, "database", "") or ""),
        reason=body.reason,
    )


def _with_reason(asked: Asked, reason: str) -> Asked:
    return Asked(
        operation=asked.operation, params=asked.params, database=asked.database, reason=reason
    )


def _escaped(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if unescape(escaped) != text:
        raise AssertionError(text)
    return escaped


def _unlike(error: ValidationError, model: type[BaseModel]) -> MalformedError:
    place, said = _first(error)
    return MalformedError(
        f"The body cannot be taken: {place}: {said}.",
        next_step=f"It may have {', '.join(_public(model))}.",
    )


def _public(model: type[BaseModel]) -> list[str]:
    hidden = _Base.model_fields.keys()
    return [name for name in model.model_fields if name not in hidden]


def _first(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:80]
    return place or "all of it", first["msg"].removeprefix("Value error, ").rstrip(".")


def _no_constant(name: str) -> object:
    raise _OddError(f"{name} is no number")


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _OddError("a name stands twice in one object")
    return found


def _look_through(value: object, depth: int) -> None:
    """Refuse what nobody can store or read: control characters, torn surrogates, towers."""
    if depth > _DEPTH_MAX:
        raise _OddError(f"it is nested more than {_DEPTH_MAX} deep")
    match value:
        case str():
            _look_at(value)
        case dict():
            for name, inner in value.items():
                _look_at(name)
                _look_through(inner, depth + 1)
        case list():
            for inner in value:
                _look_through(inner, depth + 1)
        case float() if value in (float("inf"), float("-inf")):
            raise _OddError("a number is too large")
        case int() if not isinstance(value, bool) and value.bit_length() > 63:  # noqa: PLR2004
            raise _OddError("a number is too large")
        case _:
            return


def _look_at(text: str) -> None:
    if text.isascii() and text.isprintable():
        return
    for char in text:
        if char not in _LINE_ENDS and unicodedata.category(char) in {"Cc", "Cs"}:
            raise _OddError(f"it contains the control character U+{ord(char):04X}")
