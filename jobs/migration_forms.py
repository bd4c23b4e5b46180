"""The form in which a file's statements run, as it was before the first of them did. Pure.

What keeps data aside depends on the catalog, which has changed once a run is under way. So its
statements are stored before, and a run's next life goes on with the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import JsonValue

from postgres.migrate.apply_words import Unit
from postgres.migrate.aside_words import Kept

FORMS: Final = "forms"  # index of the statement -> [what runs, what the file says]
KEPT: Final = "kept"


def forms_of(unit: Unit, kept: Sequence[Kept]) -> dict[str, JsonValue]:
    """What is stored of a unit before it runs."""
    forms: dict[str, JsonValue] = {
        str(each.index): [each.sql, each.original]
        for each in unit.review.statements
        if each.original
    }
    return {FORMS: forms, KEPT: [each.to_json() for each in kept]}


def with_forms(unit: Unit, stored: Mapping[str, Any]) -> Unit:
    """The unit with its statements in their stored form, whatever the catalog says by now."""
    forms = stored.get(FORMS)
    if not isinstance(forms, Mapping):
        return unit
    statements = tuple(
        replace(each, sql=str(forms[str(each.index)][0]), original=str(forms[str(each.index)][1]))
        if str(each.index) in forms
        else each
        for each in unit.review.statements
    )
    return replace(unit, review=replace(unit.review, statements=statements))


def kept_of(stored: Mapping[str, Any]) -> tuple[Kept, ...]:
    """What the stored form keeps aside."""
    found = stored.get(KEPT)
    return tuple(Kept.from_json(each) for each in found) if isinstance(found, list) else ()
