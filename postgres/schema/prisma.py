"""What a `schema.prisma` says, read into values. Pure.

The part of Prisma's language that speaks of PostgreSQL: models, enums, their fields and
attributes. What is not understood is refused with its line: half a schema would be a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from postgres.errors import PostgresError

_BLOCK: Final = re.compile(r"^(model|enum|view|type|generator|datasource)\s+(\w+)\s*\{$")
_FIELD: Final = re.compile(r"^(\w+)\s+(Unsupported\(\"[^\"]*\"\)|\w+)(\[\]|\?)?\s*(.*)$", re.DOTALL)
_ATTRIBUTE: Final = re.compile(r"@@?([\w.]+)")
_PAIRS: Final[Mapping[str, str]] = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """`@default(now())`: a name and its arguments as text; `named` are those with a name."""

    name: str
    args: tuple[str, ...] = ()
    named: Mapping[str, str]

    def get(self, name: str, place: int = 0) -> str | None:
        """An argument by its name, or else by its place."""
        if name in self.named:
            return self.named[name]
        return self.args[place] if place < len(self.args) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One line of a model."""

    name: str
    type: str
    is_list: bool
    is_optional: bool
    attributes: tuple[Attribute, ...]
    line: int

    def attribute(self, name: str) -> Attribute | None:
        """The attribute of this name, if it has one."""
        return next((each for each in self.attributes if each.name == name), None)

    @property
    def column(self) -> str:
        """What it is called in the database."""
        mapped = self.attribute("map")
        return text_of(mapped.get("name") or "") if mapped else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model with its fields and `@@` attributes."""

    name: str
    fields: tuple[Field, ...]
    attributes: tuple[Attribute, ...]
    line: int

    def attribute(self, name: str) -> Attribute | None:
        """The first block attribute of this name."""
        return next((each for each in self.attributes if each.name == name), None)

    @property
    def table(self) -> str:
        """What it is called in the database."""
        mapped = self.attribute("map")
        return text_of(mapped.get("name") or "") if mapped else self.name

    @property
    def schema(self) -> str:
        """The database schema that it says it is in; '' for the usual one."""
        said = self.attribute("schema")
        return text_of(said.get("name") or "") if said else ""

    def field(self, name: str) -> Field | None:
        """The field of this name."""
        return next((each for each in self.fields if each.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enum:
    """An enum: its name in the database, and its labels there by their names."""

    name: str
    type_name: str
    labels: Mapping[str, str]
    schema: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrismaSchema:
    """The whole file."""

    models: tuple[Model, ...]
    enums: tuple[Enum, ...]


def parse_prisma(text: str) -> PrismaSchema:
    """The models and enums of a file.

    Raises:
        PostgresError: it cannot be read; says the line.
    """
    models: list[Model] = []
    enums: list[Enum] = []
    for kind, name, start, lines in _blocks(text):
        match kind:
            case "model":
                models.append(_model(name, start, lines))
            case "enum":
                enums.append(_enum(name, lines))
            case "view" | "type":
                raise wrong(start, f"{kind} {name} is not understood: PostgreSQL's schema is"
                                   " compared by models and enums")  # fmt: skip
            case _:
                pass  # generator and datasource say nothing of the schema
    return PrismaSchema(models=tuple(models), enums=tuple(enums))


def text_of(literal: str) -> str:
    """What stands between the quotes of a string."""
    return literal.strip().strip('"').replace('\\"', '"')


def names_of(literal: str | None) -> tuple[str, ...]:
    """The names in `[a, b(sort: Desc)]`, without what is said of each."""
    return tuple(re.match(r"\w*", part).group() for part in list_of(literal))  # type: ignore[union-attr]


def list_of(literal: str | None) -> tuple[str, ...]:
    """The parts of `[a, b(sort: Desc)]`."""
    inner = (literal or "").strip().removeprefix("[").removesuffix("]")
    return tuple(_split(inner))


def wrong(line: int, problem: str) -> PostgresError:
    """What is wrong with a line of the file."""
    return PostgresError(
        f"schema.prisma, line {line}: {problem}.",
        next_step="If Prisma takes it, declare the schema as SQL instead: prisma migrate diff"
        " --from-empty --to-schema-datamodel schema.prisma --script",
    )


def _blocks(text: str) -> Iterator[tuple[str, str, int, list[tuple[int, str]]]]:
    """Each block: its kind, name, first line, and its logical lines with their numbers."""
    begun: tuple[str, str, int] | None = None
    inside: list[tuple[int, str]] = []
    for number, line in _logical(text):
        if begun is None:
            found = _BLOCK.match(line)
            if found is None:
                raise wrong(number, f"{line!r} is no beginning of a block")
            begun, inside = (found[1], found[2], number), []
        elif line == "}":
            yield (*begun, inside)
            begun = None
        else:
            inside.append((number, line))
    if begun is not None:
        raise wrong(begun[2], f"{begun[0]} {begun[1]} does not end")


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments; one whose brackets are open goes on in the next."""
    held, began = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _without_comment(raw).strip()
        if not line:
            continue
        began = began or number
        held = f"{held} {line}".strip()
        # The brace of a block's beginning stays open until its own line.
        if _open_brackets(held) > 0 and not _BLOCK.match(held):
            continue
        yield began, held
        held, began = "", 0
    if held:
        raise wrong(began, "a bracket is not closed")


def _without_comment(line: str) -> str:
    in_text = False
    for place, char in enumerate(line):
        if char == '"' and (place == 0 or line[place - 1] != "\\"):
            in_text = not in_text
        if not in_text and line.startswith("//", place):
            return line[:place]
    return line


def _open_brackets(text: str) -> int:
    plain = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    return sum(plain.count(char) for char in "([") - sum(plain.count(char) for char in ")]")


def _model(name: str, start: int, lines: Sequence[tuple[int, str]]) -> Model:
    fields: list[Field] = []
    attributes: list[Attribute] = []
    for number, line in lines:
        if line.startswith("@@"):
            attributes += _attributes(line, number)
            continue
        found = _FIELD.match(line)
        if found is None:
            raise wrong(number, f"{line!r} is no field")
        fields.append(
            Field(
                name=found[1], type=found[2], is_list=found[3] == "[]", is_optional=found[3] == "?",
                attributes=tuple(_attributes(found[4], number)), line=number,
            )
        )  # fmt: skip
    return Model(name=name, fields=tuple(fields), attributes=tuple(attributes), line=start)


def _enum(name: str, lines: Sequence[tuple[int, str]]) -> Enum:
    labels: dict[str, str] = {}
    type_name, schema = name, ""
    for number, line in lines:
        label, _, rest = line.partition(" ")
        said = {each.name: each for each in _attributes(line if line[0] == "@" else rest, number)}
        mapped = text_of(said["map"].get("name") or "") if "map" in said else None
        if line.startswith("@@"):
            type_name = mapped or type_name
            schema = text_of(said["schema"].get("name") or "") if "schema" in said else schema
        else:
            labels[label] = mapped or label
    return Enum(name=name, type_name=type_name, labels=labels, schema=schema)


def _attributes(text: str, line: int) -> Iterator[Attribute]:
    rest = text.strip()
    while rest:
        found = _ATTRIBUTE.match(rest)
        if found is None:
            raise wrong(line, f"{rest!r} is no attribute")
        rest, inside = rest[found.end() :], ""
        if rest.startswith("("):
            end = _closing(rest, line)
            inside, rest = rest[1:end], rest[end + 1 :]
        yield _attribute(found[1], inside)
        rest = rest.strip()


def _attribute(name: str, inside: str) -> Attribute:
    args: list[str] = []
    named: dict[str, str] = {}
    for part in _split(inside):
        found = re.match(r"(\w+)\s*:\s*(.*)", part, re.DOTALL)
        if found:
            named[found[1]] = found[2]
        else:
            args.append(part)
    return Attribute(name=name, args=tuple(args), named=named)


def _split(text: str) -> Iterator[str]:
    """Parts between commas that stand in no bracket and no string."""
    depth, in_text, begun = 0, False, 0
    for place, char in enumerate(text):
        if char == '"' and (place == 0 or text[place - 1] != "\\"):
            in_text = not in_text
        elif in_text:
            continue
        elif char in _PAIRS:
            depth += 1
        elif char in _PAIRS.values():
            depth -= 1
        elif char == "," and depth == 0:
            yield text[begun:place].strip()
            begun = place + 1
    if last := text[begun:].strip():
        yield last


def _closing(text: str, line: int) -> int:
    """Where the bracket ends that `text` begins with."""
    depth, in_text = 0, False
    for place, char in enumerate(text):
        if char == '"' and text[place - 1] != "\\":
            in_text = not in_text
        elif not in_text and char in _PAIRS:
            depth += 1
        elif not in_text and char in _PAIRS.values():
            depth -= 1
            if depth == 0:
                return place
    raise wrong(line, "a bracket is not closed")
