"""Declared changes that the tests share: the guide's two, and a column that gets another type."""

from __future__ import annotations

import hashlib
import textwrap
from typing import Any

import yaml

from postgres.migrate.changes.facts import Column, Facts
from postgres.migrate.changes.model import read_change
from postgres.migrate.changes.words import Change

# The guide's "expand-contract": name becomes firstName and lastName, and CONCAT is the way back.
NAMES = """
    version: 1
    kind: expand_contract
    table: public.User
    expand:
      - ALTER TABLE "User" ADD COLUMN "firstName" text, ADD COLUMN "lastName" text
    sync:
      set:
        firstName: SPLIT_PART("name", ' ', 1)
        lastName: SPLIT_PART("name", ' ', 2)
      reverse:
        name: CONCAT("firstName", ' ', "lastName")
    validate:
      not_null: [firstName, lastName]
      constraints: {first_short: CHECK (length("firstName") < 100)}
      indexes: ['CREATE INDEX "User_lastName_idx" ON "User" ("lastName")']
      checks: ['SELECT count(*) = 0 FROM public."User" WHERE "firstName" IS NULL']
    contract: {drop: [name]}
"""
# The guide's "shadow columns": a copy of email beside it, which then takes its name.
EMAIL = """
    version: 1
    kind: shadow_column
    table: public.User
    column: email
    shadow: email_new
    type: text
    down: CASE WHEN length(email) <= 255 THEN email END
"""
TENANT = """
    version: 1
    kind: shadow_column
    table: public.accounts
    column: tenant_id
    type: bigint
    down: CASE WHEN tenant_id BETWEEN -2147483648 AND 2147483647 THEN tenant_id::int END
"""


def change_of(text: str, name: str = "user_names") -> Change:
    """What a text of YAML says."""
    plain = textwrap.dedent(text)
    sha256 = hashlib.sha256(plain.encode()).hexdigest()
    return read_change(yaml.safe_load(plain), name=name, file=f"{name}.yml", sha256=sha256)


def user_facts(**more: Any) -> Facts:
    """The guide's table, before anything was done to it."""
    columns = {
        "id": Column(name="id", type="integer", not_null=True),
        "name": Column(name="name", type="text"),
        "email": Column(name="email", type="character varying(255)", not_null=True),
    }
    return Facts(oid=16385, major=17, **{"columns": columns, "key": ("id",), **more})
