"""What somebody typed after `/db`, as an operation and its parameters. Pure."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ValidationError

from approvals.words import BadInputError
from bot.blocks import unescape
from jobs.operation import Operation

TEXT_CHARS_MAX: Final = 4000
# Phones turn straight quotes into these.
_QUOTES: Final = str.maketrans("\u201c\u201d\u201e\u2018\u2019", '"""\'\'')
_NAMED: Final = re.compile(r"(?:--)?(?P<name>[A-Za-z][A-Za-z0-9_-]*)=(?P<value>.*)", re.DOTALL)
_OPTION: Final = re.compile(r"--(?P<name>[A-Za-z][A-Za-z0-9_-]*)")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_QUOTING: Final = re.compile(r"""["'\\]""")
_SPACE: Final = re.compile(r"[ \t\r\n]+")  # as shlex has it
REASON: Final = "reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """An operation with checked parameters; `database` is '' for an operation without one."""

    operation: Operation
    params: BaseModel
    database: str
    reason: str


class MissingInputError(BadInputError):
    """A parameter was not typed. A door that has forms can ask for it, with what was typed."""

    def __init__(
        self,
        problem: str,
        *,
        next_step: str,
        operation: str,
        values: Mapping[str, str],
        reason: str,
    ) -> None:
        super().__init__(problem, next_step=next_step)
        self.operation = operation
        self.values = values
        self.reason = reason


def words(text: str) -> list[str]:
    """The words of a command; quotes keep words together.

    Raises:
        BadInputError: it is too long, has control characters, or a quote is not closed.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise BadInputError(
            f"The command has {len(text)} characters; {TEXT_CHARS_MAX} are allowed.",
            next_step="Say it shorter.",
        )
    if _CONTROL.search(text):
        raise BadInputError(
            "The command contains control characters.", next_step="Type it again by hand."
        )
    plain = unescape(text.translate(_QUOTES))
    try:
        return _split(plain)
    except ValueError:
        # An apostrophe, as in `reason=it's late`, is no quotation.
        pass
    try:
        return _split(plain.replace("'", "\\'"))
    except ValueError:
        raise BadInputError(
            "A quotation in the command is not closed.",
            next_step='Put a second quotation mark at its end: reason="before the release".',
        ) from None


def _split(text: str) -> list[str]:
    if not _QUOTING.search(text):
        return [word for word in _SPACE.split(text) if word]
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def parse(name: str, rest: Sequence[str], operations: Mapping[str, Operation]) -> Asked:
    """The operation `name` with the parameters in `rest`.

    Parameters come by order of the fields, or as `key=value` or `--key value`. `reason`
    is always understood: it says why.

    Raises:
        BadInputError: there is no such operation, or a parameter is missing, unknown or
            wrong. Names the field and shows an example.
    """
    operation = operations.get(name)
    if operation is None:
        raise unknown(name, operations)
    fields = list(operation.params.model_fields)
    values, reason = _assigned(rest, fields, operation)
    try:
        params = operation.params.model_validate(values)
    except ValidationError as error:
        raise _invalid(error, operation, values, reason) from None
    return Asked(
        operation=operation,
        params=params,
        database=str(getattr(params, "database", "") or ""),
        reason=reason,
    )


def unknown(name: str, known: Iterable[str]) -> BadInputError:
    """There is nothing called `name`."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return BadInputError(
        f"There is nothing called {name!r} to do.",
        next_step=f"Did you mean /db {near[0]}?" if near else "/db help lists what there is.",
    )


def _assigned(
    rest: Sequence[str], fields: Sequence[str], operation: Operation
) -> tuple[dict[str, str], str]:
    known = [*fields, *([] if REASON in fields else [REASON])]
    named: dict[str, str] = {}
    ordered: list[str] = []
    pending = list(rest)
    while pending:
        word = pending.pop(0)
        if pair := _NAMED.fullmatch(word):
            _name(named, pair["name"], pair["value"], known, operation)
        elif option := _OPTION.fullmatch(word):
            if not pending:
                raise _wrong(f"--{option['name']} has no value.", operation)
            _name(named, option["name"], pending.pop(0), known, operation)
        else:
            ordered.append(word)
    free = [field for field in fields if field not in named]
    if len(ordered) > len(free):
        extra = " ".join(ordered[len(free) :])
        raise _wrong(f"/db {operation.name} does not understand {extra!r}.", operation)
    named.update(zip(free, ordered, strict=False))
    reason = named.pop(REASON, "") if REASON not in fields else ""
    return named, reason


def _name(
    named: dict[str, str], name: str, value: str, known: Sequence[str], operation: Operation
) -> None:
    field = name.lower().replace("-", "_")
    if f"{field}_" in known:  # a word of Python's, such as `from_`
        field = f"{field}_"
    if field not in known:
        near = difflib.get_close_matches(field, known, n=1, cutoff=0.5)
        raise _wrong(
            f"/db {operation.name} has no parameter {name!r}"
            + (f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}."),
            operation,
        )
    if field in named:
        raise _wrong(f"The parameter {field} is given twice.", operation)
    named[field] = value


def _invalid(
    error: ValidationError, operation: Operation, values: Mapping[str, str], reason: str
) -> BadInputError:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        said = _wrong(f"/db {operation.name} needs {_described(field, operation)}.", operation)
        return MissingInputError(
            said.problem, next_step=said.next_step, operation=operation.name, values=values,
            reason=reason,
        )  # fmt: skip
    wrong = first["msg"].removeprefix("Value error, ").rstrip(".")
    return _wrong(f"{field or 'The command'}: {wrong}.", operation)


def _described(field: str, operation: Operation) -> str:
    known = operation.params.model_fields.get(field)
    about = known.description if known is not None else None
    return f"{field} ({about[0].lower()}{about[1:].rstrip('.')})" if about else field


def _wrong(problem: str, operation: Operation) -> BadInputError:
    return BadInputError(problem, next_step=f"Write it like this: {_example(operation)}")


def _example(operation: Operation) -> str:
    return operation.example if operation.example.startswith("/") else f"/db {operation.example}"
