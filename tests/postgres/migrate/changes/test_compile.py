"""What a change compiles to: the guide's example as a whole, and what must be in each phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from postgres.migrate.changes.compile import OWED, phase_steps
from postgres.migrate.changes.facts import Attached, Column, Dependant, Facts, Trigger
from postgres.migrate.changes.machine import Phase, State
from postgres.migrate.changes.objections import (
    contract_objection,
    expand_objection,
    switch_objection,
    table_objection,
)
from postgres.migrate.changes.shared import beside, table_of
from postgres.migrate.changes.steps import (
    Alone,
    Mark,
    Short,
    from_json,
    statements_of,
    to_json,
)
from postgres.migrate.changes.words import Change
from tests.postgres.migrate.changes.examples import EMAIL, NAMES, change_of, user_facts

SWITCHED_EMAIL = {
    "id": Column(name="id", type="integer", not_null=True),
    "name": Column(name="name", type="text"),
    "email": Column(name="email", type="text", not_null=True),
    "email__old": Column(name="email__old", type="character varying(255)"),
}
UNIQUE_EMAIL = Attached(
    kind="index",
    name="User_email_key",
    definition='CREATE UNIQUE INDEX "User_email_key" ON public."User" USING btree (email)',
    columns=frozenset({"email"}),
    is_unique=True,
)


def sql(change: Change, facts: Facts, phase: Phase, state: State, **marks: Mark) -> str:
    steps = phase_steps(change, facts, phase, state, marks)
    table = table_of(change)
    return "\n".join(f"{text};" for step in steps for text in statements_of(step, table=table))


GOLDEN_EXPAND = """\
BEGIN;
INSERT INTO twokey_migrate.change_marks (change, mark, sha256, detail)
VALUES ('user_names', 'expanded', '{sha256}', '{{"schemas": []}}');
ALTER TABLE "public"."User" ADD COLUMN "firstName" text, ADD COLUMN "lastName" text;
CREATE OR REPLACE FUNCTION "twokey_migrate"."user_names_sync"() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $twokey$
BEGIN
    BEGIN
        NEW."firstName" := split_part(new.name, ' ', 1);
        NEW."lastName" := split_part(new.name, ' ', 2);
    EXCEPTION WHEN OTHERS THEN
        NEW."firstName" := NULL;
        NEW."lastName" := NULL;
    END;
    RETURN NEW;
END
$twokey$;
DROP TRIGGER IF EXISTS "zz_twokey_user_names" ON "public"."User";
CREATE TRIGGER "zz_twokey_user_names" BEFORE INSERT OR UPDATE OF "name" ON "public"."User"
    FOR EACH ROW EXECUTE FUNCTION "twokey_migrate"."user_names_sync"();
ALTER TABLE "public"."User" ENABLE ALWAYS TRIGGER "zz_twokey_user_names";
COMMIT;"""


def test_the_guides_example_expands_to_exactly_this() -> None:
    change = change_of(NAMES)
    made = sql(change, user_facts(), Phase.EXPAND, State.NONE)
    assert made == GOLDEN_EXPAND.format(sha256=change.sha256)


def test_the_guides_backfill_writes_what_differs_and_nothing_twice() -> None:
    change = change_of(NAMES)
    (fill, *_) = phase_steps(change, user_facts(), Phase.BACKFILL, State.EXPANDED, {})
    (text,) = statements_of(fill, table=table_of(change))
    assert text.startswith(
        'UPDATE "public"."User" SET "firstName" = split_part(name, \' \', 1),'
        " \"lastName\" = split_part(name, ' ', 2)"
    )
    assert 'NOT ("firstName" IS NOT DISTINCT FROM CAST((split_part(name' in text


def test_validation_scans_outside_of_every_lock() -> None:
    change = change_of(NAMES)
    steps = phase_steps(change, user_facts(), Phase.VALIDATE, State.BACKFILLED, {})
    alone = [step.statement for step in steps if isinstance(step, Alone)]
    assert alone == [
        'ALTER TABLE "public"."User" VALIDATE CONSTRAINT "first_short"',
        'ALTER TABLE "public"."User" VALIDATE CONSTRAINT "user_names_firstName_nn"',
        'ALTER TABLE "public"."User" VALIDATE CONSTRAINT "user_names_lastName_nn"',
        'CREATE INDEX CONCURRENTLY "User_lastName_idx" ON public."User" ("lastName")',
    ]
    shorts = "\n".join(
        text for step in steps if isinstance(step, Short) for text in step.statements
    )
    assert shorts.count("NOT VALID") == 3
    # Nothing is made stricter before every row was compared.
    assert type(steps[0]).__name__ == "Compare"


def test_after_the_switch_both_halves_follow_and_the_way_back_is_concat() -> None:
    change = change_of(NAMES)
    made = sql(change, user_facts(), Phase.SWITCH, State.VALIDATED)
    assert 'NEW."name" := concat(new."firstName", \' \', new."lastName");' in made
    assert "NEW.\"firstName\" := split_part(new.name, ' ', 1);" in made
    assert 'UPDATE OF "firstName", "lastName", "name"' in made
    assert "DROP COLUMN" not in made
    gone = sql(change, user_facts(), Phase.CONTRACT, State.SWITCHED)
    assert 'ALTER TABLE "public"."User" DROP COLUMN "name";' in gone
    assert 'DROP COLUMN "firstName"' not in gone


def test_a_shadow_takes_the_name_with_all_that_was_copied() -> None:
    change = change_of(EMAIL, "email")
    facts = user_facts(attached=(UNIQUE_EMAIL,))
    ready = sql(change, facts, Phase.VALIDATE, State.BACKFILLED)
    assert (
        'CREATE UNIQUE INDEX CONCURRENTLY "User_email_key__new" ON public."User" (email_new)'
        in ready
    )
    made = sql(change, facts, Phase.SWITCH, State.VALIDATED)
    order = [
        "'switched'",
        'NEW."email__old" := CASE WHEN length(new.email) <= 255 THEN new.email END;',
        'ALTER COLUMN "email" DROP NOT NULL',
        'RENAME COLUMN "email" TO "email__old"',
        'RENAME COLUMN "email_new" TO "email"',
        'ALTER INDEX "public"."User_email_key" RENAME TO "User_email_key__old"',
        'ALTER INDEX "public"."User_email_key__new" RENAME TO "User_email_key"',
        'UPDATE OF "email" ON',
    ]
    assert [made.index(text) for text in order] == sorted(made.index(text) for text in order)


def test_the_way_back_from_a_switch_is_the_switch_the_other_way_round() -> None:
    change = change_of(EMAIL, "email")
    facts = user_facts(columns=SWITCHED_EMAIL)
    detail = {"not_null": True, "default": None, "carried": [["index", "User_email_key"]]}
    marks = {"switched": Mark(sha256=change.sha256, detail=detail)}
    made = sql(change, facts, Phase.BACK, State.SWITCHED, **marks)
    order = [
        "AS expected",  # first it is looked at whether anything would be lost
        "'backfilled'",
        'NEW."email_new" := CAST(new.email AS text);',
        'RENAME COLUMN "email" TO "email_new"',
        'RENAME COLUMN "email__old" TO "email"',
        'CHECK ("email" IS NOT NULL) NOT VALID',
        'ALTER COLUMN "email" SET NOT NULL',
    ]
    assert [made.index(text) for text in order] == sorted(made.index(text) for text in order)


def test_not_null_that_is_still_owed_is_settled_by_whatever_comes_next() -> None:
    change = change_of(EMAIL, "email")
    owed = {OWED: Mark(sha256=change.sha256, detail={})}
    for phase, state in (
        (Phase.VALIDATE, State.BACKFILLED),
        (Phase.SWITCH, State.VALIDATED),
        (Phase.BACK, State.BACKFILLED),
    ):
        made = sql(change, user_facts(), phase, state, **owed)
        assert 'ALTER COLUMN "email" SET NOT NULL' in made


def test_another_before_trigger_makes_ours_look_at_every_update() -> None:
    other = Trigger(
        name="a_touch", state="O", is_before_row=True, function_schema="public", body_md5=""
    )
    made = sql(change_of(NAMES), user_facts(triggers=(other,)), Phase.EXPAND, State.NONE)
    assert "BEFORE INSERT OR UPDATE ON" in made


def test_views_show_both_shapes_with_the_rights_of_whoever_asks() -> None:
    change = change_of(f"{NAMES}    views: {{old: app_v1, new: app_v2}}\n")
    facts = user_facts(others_in={"app_v1": 3}, grants={"app": "INSERT, SELECT"})
    made = sql(change, facts, Phase.EXPAND, State.NONE)
    assert 'CREATE SCHEMA "app_v2"' in made
    assert 'CREATE SCHEMA "app_v1"' not in made
    assert 'CREATE VIEW "app_v1"."User" WITH (security_invoker = true)' in made
    assert 'SELECT "id", "email", "firstName", "lastName"' in made
    assert 'GRANT INSERT, SELECT ON "app_v2"."User" TO app' in made
    assert "twokey_same" in made  # both are written from the first day
    old = sql(change, replace(facts, major=14), Phase.EXPAND, State.NONE)
    assert "security_invoker" not in old
    marks = {"expanded": Mark(sha256=change.sha256, detail={"schemas": ["app_v2"]})}
    gone = sql(change, facts, Phase.CONTRACT, State.SWITCHED, **marks)
    assert 'DROP SCHEMA IF EXISTS "app_v2"' in gone
    assert 'DROP SCHEMA IF EXISTS "app_v1"' not in gone


def test_steps_survive_the_store() -> None:
    change = change_of(NAMES)
    for phase, state in (
        (Phase.BACKFILL, State.EXPANDED),
        (Phase.VALIDATE, State.BACKFILLED),
        (Phase.BACK, State.SWITCHED),
    ):
        steps = phase_steps(change, user_facts(), phase, state, {})
        assert from_json(to_json(steps)) == steps


def test_a_name_with_an_ending_is_never_cut_by_the_server() -> None:
    long = "ü" * 31
    made = {beside(long + tail, "__old") for tail in ("", "a")}
    assert len(made) == 2
    assert all(len(name.encode()) <= 63 for name in made)


VIEW = Dependant(column="email", text="rule _RETURN on view mails", schema="public")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"kind": "p"}, "is partitioned"),
        ({"kind": "v"}, "is a view"),
        ({"is_partition": True, "family": ("parts",)}, "part of another table.*parts"),
        ({"persistence": "t"}, "temporary"),
        ({"is_ours": False, "owner": "ana"}, "belongs to ana"),
        ({"key": ()}, "no primary key"),
        ({"volatile": ("public.f",)}, "public.f does not exist"),
        ({"strings_conform": False}, "standard_conforming_strings"),
    ],
)
def test_tables_that_cannot_be_changed_so(facts: Mapping[str, object], says: str) -> None:
    found = table_objection(change_of(NAMES), user_facts(**facts))
    assert found is not None
    assert found.next_step
    with pytest.raises(type(found), match=says):
        raise found


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"dependants": (VIEW,)}, "rule _RETURN on view mails"),
        ({"publications": ("everything",)}, "published .everything."),
        ({"attached": (Attached(kind="p", name="User_pkey", definition="",
                                     columns=frozenset({"email"})),)}, "primary key User_pkey"),
        ({"attached": (Attached(kind="f", name="orders_mail", definition="", is_other=True,
                                columns=frozenset({"email"})),)}, "orders_mail of another table"),
        ({"attached": (Attached(kind="index", name="i", definition="", is_valid=False,
                                columns=frozenset({"email"})),)}, "invalid index i"),
        ({"attached": (Attached(kind="index", name="i", definition="", is_replica_identity=True,
                                columns=frozenset({"email"})),)}, "replica identity i"),
        ({"triggers": (Trigger(name="zzz", state="O", is_before_row=True, function_schema="public",
                               body_md5=""),)}, "zzz fires after ours"),
        ({"triggers": (Trigger(name="zz_twokey_email", state="A", is_before_row=True,
                               function_schema="public", body_md5=""),)}, "is there already"),
    ],
)  # fmt: skip
def test_what_cannot_follow_a_shadow_is_refused_by_name(
    facts: Mapping[str, object], says: str
) -> None:
    found = expand_objection(change_of(EMAIL, "email"), user_facts(**facts))
    assert found is not None
    with pytest.raises(type(found), match=says):
        raise found


def test_what_came_to_hold_on_meanwhile_stops_the_switch_and_the_end() -> None:
    shadow, wide = change_of(EMAIL, "email"), change_of(NAMES)
    assert switch_objection(shadow, user_facts(dependants=(VIEW,))) is not None
    assert switch_objection(shadow, user_facts()) is None
    named = Dependant(column="name", text="view people", schema="public")
    assert contract_objection(wide, user_facts(dependants=(named,))) is not None
    assert contract_objection(wide, user_facts()) is None
    views = change_of(f"{NAMES}    views: {{old: app_v1, new: app_v2}}\n")
    ours = Dependant(column="name", text="view app_v1.User", schema="app_v1")
    assert contract_objection(views, user_facts(dependants=(ours,))) is None


def test_an_old_column_that_nobody_would_fill_stops_the_switch() -> None:
    change = change_of(NAMES.replace("""      reverse:
        name: CONCAT("firstName", ' ', "lastName")
""", "      reverse: {}\n"))  # fmt: skip
    columns = dict(user_facts().columns)
    columns["name"] = Column(name="name", type="text", not_null=True)
    found = switch_objection(change, user_facts(columns=columns))
    assert found is not None
    assert "name is NOT NULL" in found.problem
