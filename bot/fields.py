"""What an operation's parameters say about themselves, as fields of a form. Pure."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from jobs.hints import Multiline

DATABASE: Final = "database"
OPTIONS_MAX: Final = 100
RADIO_MAX: Final = 5
BOXES_MAX: Final = 10
VALUE_CHARS_MAX: Final = 3000
KEY_CHARS_MAX: Final = 150
_PLAIN: Final = (str, UUID, Path)
_MANY: Final = (list, tuple, set, frozenset)


class Missing:
    """The type of `MISSING`: there is no value, which is not None."""


MISSING: Final = Missing()


class Widget(StrEnum):
    """An element of Slack's that a form uses."""

    SEARCH = "external_select"
    RADIO = "radio_buttons"
    SELECT = "static_select"
    BOXES = "checkboxes"
    MULTI = "multi_static_select"
    NUMBER = "number_input"
    DATE = "datepicker"
    TIME = "timepicker"
    MOMENT = "datetimepicker"
    TEXT = "plain_text_input"


YES: Final = "true"
NO: Final = "false"


class FieldKind(StrEnum):
    """How somebody is asked for a value."""

    DATABASE = "database"
    CHOICE = "choice"
    CHOICES = "choices"
    FLAG = "flag"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"
    MOMENT = "moment"
    SPAN = "span"
    TEXT = "text"
    LINES = "lines"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of a closed set. `key` stands for the value in a form, also in a later version."""

    key: str
    text: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One parameter. `default` is MISSING where there is none that could be shown."""

    name: str
    kind: FieldKind
    annotation: Any
    label: str
    hint: str
    example: str
    default: Any
    is_required: bool  # by the model: it has no default
    nullable: bool
    takes_empty: bool  # an empty text or list is a value of it
    choices: tuple[Choice, ...] = ()
    is_whole: bool = False
    low: str | None = None
    high: str | None = None
    chars_min: int | None = None
    chars_max: int | None = None
    multiline: bool = False

    @property
    def may_be_left_empty(self) -> bool:
        """Whether a form without a value for it can be sent."""
        unknown = not self.is_required and self.default is MISSING
        return self.nullable or self.takes_empty or unknown or self.kind is FieldKind.FLAG

    def valid(self, value: Any) -> Any:
        """`value` as the model takes it, or MISSING when the model would not."""
        try:
            return _adapter(self.annotation).validate_python(value)
        except ValidationError:
            return MISSING

    def as_json(self, value: Any) -> Any:
        """A value of the field as JSON has it."""
        return _adapter(self.annotation).dump_python(value, mode="json")


@lru_cache(maxsize=512)
def fields_of(params: type[BaseModel]) -> tuple[FormField, ...]:
    """The fields of a form for these parameters, in their order."""
    return tuple(_field(name, info) for name, info in params.model_fields.items())


@lru_cache(maxsize=4096)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Type:
    """An annotation taken apart: what is left, what was said about it, and whether None fits."""

    bare: Any
    said: tuple[Any, ...]
    nullable: bool


def _apart(annotation: Any, said: Iterable[Any] = ()) -> _Type:
    """The type without `Annotated` and without None, as deep as they go."""
    notes = tuple(said)
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _apart(inner, (*notes, *more))
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        has_none = len(parts) < len(get_args(annotation))
        if len(parts) == 1:
            found = _apart(parts[0], notes)
            return _Type(bare=found.bare, said=found.said, nullable=has_none or found.nullable)
        return _Type(bare=annotation, said=notes, nullable=has_none)
    return _Type(bare=annotation, said=notes, nullable=annotation is type(None))


def _field(name: str, info: FieldInfo) -> FormField:
    taken = _apart(info.annotation, info.metadata)
    annotation: Any = info.annotation
    for note in info.metadata:
        annotation = Annotated[annotation, note]
    kind, choices = _kind(name, taken.bare)
    nullable = taken.nullable or any(choice.value is None for choice in choices)
    choices = tuple(choice for choice in choices if choice.value is not None)
    default = _default(info)
    least, most = _lengths(taken.said)
    low, high = _bounds(taken.said, is_whole=taken.bare is int)
    return FormField(
        name=name,
        kind=kind,
        annotation=annotation,
        label=(info.title or name.replace("_", " ")).capitalize(),
        hint=(info.description or "").strip(),
        example=next((str(one) for one in info.examples or () if str(one)), ""),
        default=default,
        is_required=info.is_required(),
        nullable=nullable,
        takes_empty=_takes_empty(kind, annotation, taken.bare),
        choices=choices,
        is_whole=taken.bare is int,
        low=low,
        high=high,
        chars_min=least if kind is FieldKind.TEXT else None,
        chars_max=most if kind is FieldKind.TEXT else None,
        multiline=any(isinstance(note, Multiline) or note is Multiline for note in taken.said),
    )


_KINDS: Final[Mapping[Any, FieldKind]] = {
    bool: FieldKind.FLAG,
    int: FieldKind.NUMBER,
    float: FieldKind.NUMBER,
    Decimal: FieldKind.NUMBER,
    date: FieldKind.DATE,
    time: FieldKind.TIME,
    datetime: FieldKind.MOMENT,
    timedelta: FieldKind.SPAN,
}


def _kind(name: str, bare: Any) -> tuple[FieldKind, tuple[Choice, ...]]:
    if name == DATABASE and bare is str:
        return FieldKind.DATABASE, ()
    if choices := _choices(bare):
        fits = len(choices) <= OPTIONS_MAX and _are_distinct(choices)
        return (FieldKind.CHOICE, choices) if fits else (FieldKind.JSON, ())
    if bare in _KINDS:
        return _KINDS[bare], ()
    if isinstance(bare, type) and issubclass(bare, _PLAIN):
        return FieldKind.TEXT, ()
    if (item := _item(bare)) is not None:
        return _kind_of_many(_apart(item))
    return FieldKind.JSON, ()


def _kind_of_many(item: _Type) -> tuple[FieldKind, tuple[Choice, ...]]:
    if item.nullable:
        return FieldKind.JSON, ()
    if choices := _choices(item.bare):
        fits = len(choices) <= OPTIONS_MAX and _are_distinct(choices)
        return (FieldKind.CHOICES, choices) if fits else (FieldKind.JSON, ())
    return (FieldKind.LINES, ()) if item.bare in (str, int, UUID, Path) else (FieldKind.JSON, ())


def _item(bare: Any) -> Any:
    """What a list is of; None for what is no list of one kind."""
    args = get_args(bare)
    if get_origin(bare) not in _MANY:
        return None
    if get_origin(bare) is tuple:
        return args[0] if len(args) == 2 and args[1] is Ellipsis else None  # noqa: PLR2004
    return args[0] if len(args) == 1 else None


def _choices(bare: Any) -> tuple[Choice, ...]:
    if get_origin(bare) is Literal:
        return tuple(_choice(value, value) for value in _literals(bare))
    if isinstance(bare, type) and issubclass(bare, Enum):
        return tuple(_choice(member, member.value) for member in bare)
    return ()


def _literals(bare: Any) -> Iterator[Any]:
    for value in get_args(bare):
        if get_origin(value) is Literal:
            yield from _literals(value)
        else:
            yield value


def _choice(value: Any, shown: Any) -> Choice:
    shown = shown.value if isinstance(shown, Enum) else shown
    return Choice(key=json.dumps(shown, default=str), text=str(shown) or "(empty)", value=value)


def _are_distinct(choices: tuple[Choice, ...]) -> bool:
    keys = [choice.key for choice in choices]
    return len(set(keys)) == len(keys) and max(map(len, keys)) <= KEY_CHARS_MAX


def _default(info: FieldInfo) -> Any:
    if info.is_required():
        return MISSING
    try:
        return info.get_default(call_default_factory=True, validated_data={})
    except Exception:  # noqa: BLE001 - a factory that needs the other values
        return MISSING


def _takes_empty(kind: FieldKind, annotation: Any, bare: Any) -> bool:
    """Whether nothing at all, as a form has it, is a value that the model takes."""
    match kind:
        case FieldKind.TEXT:
            empty: Any = ""
        case FieldKind.LINES | FieldKind.CHOICES:
            empty = []
        case _:
            return False
    if bare is Path:
        return False  # pydantic would take it for the folder where it stands
    try:
        _adapter(annotation).validate_python(empty)
    except ValidationError:
        return False
    return True


def _parts(said: Iterable[Any]) -> Iterator[Any]:
    """The notes one by one: pydantic's `Field` in an `Annotated` holds several."""
    for note in said:
        if isinstance(note, FieldInfo):
            yield from _parts(note.metadata)
        else:
            yield note


def _lengths(said: Iterable[Any]) -> tuple[int | None, int | None]:
    least = most = None
    for note in _parts(said):
        if isinstance(note, MinLen) or hasattr(note, "min_length"):
            least = getattr(note, "min_length", None) or least
        if isinstance(note, MaxLen) or hasattr(note, "max_length"):
            most = getattr(note, "max_length", None) or most
    return least, most


def _bounds(said: Iterable[Any], *, is_whole: bool) -> tuple[str | None, str | None]:
    """The least and the greatest number as text. Only for whole ones can a bound be excluded."""
    low: Any = None
    high: Any = None
    for note in _parts(said):
        match note:
            case Ge(ge=bound):
                low = bound
            case Gt(gt=bound) if is_whole and isinstance(bound, int):
                low = bound + 1
            case Le(le=bound):
                high = bound
            case Lt(lt=bound) if is_whole and isinstance(bound, int):
                high = bound - 1
            case _:
                pass
    return _number_text(low), _number_text(high)


def _number_text(value: Any) -> str | None:
    return number_text(value) if isinstance(value, int | float | Decimal) else None


def number_text(value: int | float | Decimal) -> str | None:  # noqa: PYI041
    """A number as people write it, without an exponent; None for one that has no such form."""
    if isinstance(value, int):
        return str(value)
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    return format(exact, "f") if exact.is_finite() else None
