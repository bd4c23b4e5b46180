"""Forms for any parameters: the elements, what Slack says of them, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model, model_validator

from bot.elements import DatabaseName, option_groups, suggestions
from bot.forms import Meta, block_of, entered, form_view
from jobs.hints import Multiline
from jobs.operation import Answer, Context, Kind, Operation, Risk
from sandbox.slack.blocks import check_view, with_ids
from sandbox.slack.viewstate import complaints, values_of

DATABASES = [
    DatabaseName(name="orders", environment="production"),
    DatabaseName(name="billing", environment="production"),
    DatabaseName(name="orders-test", environment="staging"),
]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Inner(BaseModel, extra="forbid"):
    tables: list[str]
    deep: dict[str, int]


def operation(params: type[BaseModel], kind: Kind = Kind.CHANGE) -> Operation:
    async def answer(_: Context, __: Any) -> Answer:
        return Answer(title="x")

    return Operation(
        name="paint", summary="Paint a database", kind=kind, risk=Risk.NONE, params=params,
        example="/db paint orders", answer=answer,
    )  # fmt: skip


def made(**fields: Any) -> type[BaseModel]:
    model: type[BaseModel] = create_model("Params", **fields)
    return model


def view_of(params: type[BaseModel], **more: Any) -> dict[str, Any]:
    view = form_view(operation(params), DATABASES, meta=Meta(operation="paint"), **more)
    assert check_view(dict(view), kind="modal") == []
    return dict(view)


def state_of(view: dict[str, Any]) -> dict[str, Any]:
    """What Slack keeps for a form that nobody has touched."""
    blocks = with_ids(view["blocks"])
    return values_of(blocks, {})


def block(view: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(b for b in view["blocks"] if b.get("block_id") == block_of(name))
    return found


def element(annotation: Any, default: Any = ..., *, value: Any = None) -> dict[str, Any]:
    values = {} if value is None else {"x": value}
    found: dict[str, Any] = block(view_of(made(x=(annotation, default)), values=values), "x")
    return dict(found["element"])


TEXT = st.text(max_size=40)
LINE = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
MOMENTS = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis wants bounds without a zone
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | LINE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINE, inner, max_size=3),
    max_leaves=5,
)
# Every kind of annotation that a parameter may have, and its values.
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (str, TEXT),
    "text or nothing": (str | None, st.none() | st.text(min_size=1, max_size=40)),
    "long text": (Annotated[str, Multiline()], TEXT),
    "whole": (int, st.integers()),
    "few": (Annotated[int, Field(ge=1, le=9)], st.integers(1, 9)),
    "whole or nothing": (Optional[int], st.none() | st.integers()),  # noqa: UP045 - also so
    "share": (Annotated[float, Field(ge=0, le=1)], st.floats(0, 1)),
    "number": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "exact": (Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=4)),
    "flag": (bool, st.booleans()),
    "flag or nothing": (bool | None, st.none() | st.booleans()),
    "colour": (Colour, st.sampled_from(Colour)),
    "size": (Size, st.sampled_from(Size)),
    "colour or nothing": (Colour | None, st.none() | st.sampled_from(Colour)),
    "word": (Literal["a", "b", 3, True], st.sampled_from(["a", "b", 3, True])),
    "many words": (Literal[tuple(map(str, range(50)))], st.sampled_from([*map(str, range(50))])),
    "too many": (Literal[tuple(range(200))], st.integers(0, 199)),
    "day": (date, st.dates(min_value=date(1, 1, 1))),
    "day or nothing": (date | None, st.none() | st.dates()),
    "hour": (time, st.times()),
    "minute": (time, st.builds(time, st.integers(0, 23), st.integers(0, 59))),
    "moment": (datetime, MOMENTS),
    "second": (datetime, MOMENTS.map(lambda at: at.replace(microsecond=0))),
    "local": (datetime, st.datetimes()),
    "span": (timedelta, st.timedeltas()),
    "span or nothing": (timedelta | None, st.none() | st.timedeltas()),
    "id": (UUID, st.uuids()),
    "path": (Path, st.sampled_from([Path("/a b/c"), Path("x")])),
    "tables": (list[str], st.lists(LINE, max_size=5)),
    "tables or nothing": (list[str] | None, st.none() | st.lists(LINE, min_size=1, max_size=5)),
    "tuple": (tuple[str, ...], st.lists(LINE, max_size=5).map(tuple)),
    "numbers": (list[int], st.lists(st.integers(), max_size=5)),
    "colours": (frozenset[Colour], st.frozensets(st.sampled_from(Colour))),
    "colours in order": (list[Colour], st.lists(st.sampled_from(Colour), max_size=4)),
    "many": (
        frozenset[Literal[tuple(range(50))]],  # type: ignore[misc]
        st.frozensets(st.integers(0, 49), max_size=8),
    ),
    "inner": (Inner, st.builds(Inner, tables=st.lists(LINE, max_size=2),
                               deep=st.dictionaries(LINE, st.integers(), max_size=2))),
    "map": (dict[str, Any], st.dictionaries(LINE, ANY_JSON, max_size=3)),
    "one of two": (int | str, st.integers() | LINE),
    "database": (str, st.sampled_from([one.name for one in DATABASES])),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("stored", ["python", "json"])
@given(data=st.data())
def test_whatever_stands_in_a_form_comes_out_of_it(
    name: str, stored: str, data: st.DataObject
) -> None:
    annotation, strategy = KINDS[name]
    field = "database" if name == "database" else "x"
    params = made(**{field: (annotation, ...)})
    before = params.model_validate({field: data.draw(strategy)})
    values = before.model_dump(mode=stored)
    view = view_of(params, values=values, reason="because")
    sent = entered(operation(params), state_of(view))
    assert sent.errors == {}
    assert sent.params == before
    assert sent.reason == "because"
    assert complaints(view["blocks"], state_of(view)) == {}


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Colour, "radio_buttons"),
        (Colour | None, "static_select"),
        (Literal[1, 2, 3, 4, 5, 6], "static_select"),
        (bool, "checkboxes"),
        (bool | None, "static_select"),
        (Annotated[int, Field(ge=1)], "number_input"),
        (Decimal, "number_input"),
        (date, "datepicker"),
        (time, "timepicker"),
        (datetime, "datetimepicker"),
        (timedelta, "plain_text_input"),
        (frozenset[Colour], "checkboxes"),
        (set[Literal[tuple(range(11))]], "multi_static_select"),  # type: ignore[misc]
        (list[str], "plain_text_input"),
        (dict[str, int], "plain_text_input"),
    ],
)
def test_each_type_has_its_element(annotation: Any, kind: str) -> None:
    assert element(annotation)["type"] == kind


def test_a_number_has_the_limits_of_its_field() -> None:
    found = element(Annotated[int, Field(gt=1, lt=10, examples=[3])], 2)
    assert (found["min_value"], found["max_value"], found["initial_value"]) == ("2", "9", "2")
    assert found["is_decimal_allowed"] is False
    assert found["placeholder"]["text"] == "such as 3"
    assert element(Annotated[float, Field(ge=0.5)])["min_value"] == "0.5"


def test_a_text_has_the_limits_of_its_field() -> None:
    found = element(Annotated[str, Field(min_length=2, max_length=9)])
    assert (found["min_length"], found["max_length"]) == (2, 9)
    assert element(Annotated[str, Field(max_length=9000)])["max_length"] == 3000
    assert element(Annotated[str, Multiline()])["multiline"] is True


def test_what_must_be_said_is_asked_for_and_the_rest_is_optional() -> None:
    model = made(
        colour=(Colour, ...), coats=(int, 1), by=(str | None, None), note=(str, ""),
        name=(Annotated[str, Field(min_length=1)], "x"), dry=(bool, True),
    )  # fmt: skip
    view = view_of(model)
    optional = {name: block(view, name)["optional"] for name in model.model_fields}
    assert optional == {
        "colour": False, "coats": False, "by": True, "note": True, "name": False, "dry": True,
    }  # fmt: skip


def test_the_description_the_default_and_the_example_are_shown() -> None:
    model = made(table=(str, Field("", description="Which table", examples=["public.orders"])))
    found = block(view_of(model), "table")
    assert found["label"]["text"] == "Table"
    assert found["hint"]["text"] == "Which table."
    assert found["element"]["placeholder"]["text"] == "such as public.orders"
    assert "initial_value" not in found["element"]


def test_databases_stand_under_their_environments_production_first() -> None:
    found = element(str)
    assert found["type"] == "plain_text_input"
    view = view_of(made(database=(str, ...)), values={"database": "billing"})
    select = block(view, "database")["element"]
    assert select["type"] == "static_select"
    assert [group["label"]["text"] for group in select["option_groups"]] == [
        "production",
        "staging",
    ]
    assert [o["value"] for o in select["option_groups"][0]["options"]] == ["billing", "orders"]
    assert select["initial_option"]["value"] == "billing"


def test_more_than_a_hundred_databases_are_searched_for() -> None:
    many = [DatabaseName(name=f"db{number:03}", environment="production") for number in range(101)]
    view = form_view(
        operation(made(database=(str, ...))), many, meta=Meta(operation="paint"),
        values={"database": "db007"},
    )  # fmt: skip
    assert check_view(dict(view), kind="modal") == []
    found = block(dict(view), "database")["element"]
    assert found["type"] == "external_select"
    assert found["initial_option"]["value"] == "db007"
    [group] = suggestions(many, "DB00")
    assert [o["value"] for o in group["options"]] == [f"db00{number}" for number in range(10)]
    assert sum(len(g["options"]) for g in suggestions(many, "")) == 100
    assert option_groups([]) == []


def test_a_database_that_is_gone_is_said_and_not_chosen() -> None:
    view = view_of(made(database=(str, ...)), values={"database": "<gone>"})
    assert "initial_option" not in block(view, "database")["element"]
    assert "&lt;gone&gt; is not in the inventory." in str(view["blocks"][-1])


def test_a_text_too_long_for_slack_is_said_and_not_cut() -> None:
    view = view_of(made(sql=(str, ...)), values={"sql": "x" * 3001})
    assert "initial_value" not in block(view, "sql")["element"]
    assert "Sql had 3001 characters" in str(view["blocks"][-1])


def state(**given: Any) -> dict[str, Any]:
    return {block_of(name): {"value": value} for name, value in given.items()}


def text(value: str | None) -> dict[str, Any]:
    return {"type": "plain_text_input", "value": value}


@pytest.mark.parametrize(
    ("annotation", "given", "says"),
    [
        (timedelta, text("soon"), "Write a length of time like"),
        (timedelta, text("30"), "Write a length of time like"),
        (dict[str, int], text("{"), "JSON"),
        (Annotated[str, Field(pattern="^[a-z]+$")], text("BLUE"), "pattern"),
        (Annotated[int, Field(ge=1)], {"type": "number_input", "value": "0"}, "greater than"),
        (int, {"type": "number_input", "value": "x"}, "Write a number."),
        (Colour, {"type": "static_select", "selected_option": {"value": "green"}}, "red"),
        (
            frozenset[Colour],
            {"type": "checkboxes", "selected_options": [{"value": '"green"'}]},
            "no choice any more",
        ),
        (list[Annotated[str, Field(max_length=2)]], text("ab\nabc"), "1: "),
    ],
)
def test_what_is_wrong_stands_at_its_field(annotation: Any, given: Any, says: str) -> None:
    params = made(first=(str, ""), x=(annotation, ...))
    sent = entered(operation(params), state(x=given))
    assert set(sent.errors) == {block_of("x")}
    assert says in sent.errors[block_of("x")]
    assert sent.params is None


def test_a_complaint_about_no_field_stands_at_the_first() -> None:
    class Range(BaseModel):
        low: int = 1
        high: int = 2

        @model_validator(mode="after")
        def ordered(self) -> Range:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    number: Callable[[str], dict[str, Any]] = lambda n: {"type": "number_input", "value": n}  # noqa: E731
    sent = entered(operation(Range), state(low=number("3"), high=number("2")))
    assert sent.errors == {block_of("low"): "low is above high."}


def test_parameters_that_are_called_reason_or_have_no_fields_do_no_harm() -> None:
    own = made(reason=(str, ""))
    assert [b.get("block_id") for b in view_of(own)["blocks"]] == [None, "param.reason"]
    none = made()
    view = view_of(none)
    assert entered(operation(none), state_of(view)).params == none()


def test_a_query_has_no_reason() -> None:
    view = form_view(
        operation(made(database=(str, ...)), Kind.QUERY), DATABASES, meta=Meta(operation="paint")
    )
    assert [b.get("block_id") for b in view["blocks"]] == [None, "param.database"]


def test_what_somebody_typed_stands_in_the_form_as_far_as_it_fits() -> None:
    model = made(database=(str, ...), coats=(int, ...), wait=(timedelta, ...), x=(Colour, ...))
    typed = {"database": "orders", "coats": "3", "wait": "2h", "x": "green"}
    view = view_of(model, values=typed)
    assert block(view, "coats")["element"]["initial_value"] == "3"
    assert block(view, "wait")["element"]["initial_value"] == "2h"
    assert "initial_option" not in block(view, "x")["element"]


HOSTILE = "<!channel> \u202e ```" * 30


def test_no_name_or_description_of_an_operation_breaks_its_form() -> None:
    model = made(x=(str, Field(title=HOSTILE, description=HOSTILE * 9, examples=[HOSTILE])))
    view = view_of(model, problem=HOSTILE, note=HOSTILE, reason=HOSTILE * 9)
    assert "<!channel>" not in str(view["blocks"][0])
    assert "\u202e" not in str(view["blocks"][2]["label"])


@given(of=st.text(max_size=40), again=st.integers(0, 10**12), channel=st.text(max_size=20))
def test_a_view_remembers_what_it_is_of(of: str, again: int, channel: str) -> None:
    meta = Meta(operation=of, again=again, channel=channel)
    assert Meta.of(meta.text()) == meta
