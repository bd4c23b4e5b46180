"""What a schema does not enforce though its names say that it should.

Catalogue only: no row of a table is read. What is found by a name is a guess and said as one;
what is found by a flag of the catalogue is a fact. Statements are written by the server, so
every name is quoted, and in the two steps that do not block writers: NOT VALID, then VALIDATE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

FINDINGS_MAX: Final = 200  # of each kind
# The guide's pattern, without the bar that stood among the letters of the last part.
EMAIL_PATTERN: Final = r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$"


class FindingKind(StrEnum):
    """What is the matter, the worst first."""

    DISABLED = "not enforced"  # somebody switched its triggers off
    UNVALIDATED = "not validated"
    NO_PRIMARY_KEY = "no primary key"
    MISSING_FOREIGN_KEY = "foreign key missing"
    MISSING_UNIQUE = "unique missing"
    MISSING_CHECK = "check missing"
    UNINDEXED_FOREIGN_KEY = "foreign key without an index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not enforced. `rows`: the planner's estimate; `is_guess`: by its name."""

    kind: FindingKind
    table: str
    what: str
    rows: int
    statements: tuple[str, ...]
    is_guess: bool


class Fetcher(Protocol):
    """Whatever runs a query."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...


_SPACES: Final = """
    n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""

DISABLED: Final = f"""
    SELECT DISTINCT format('%I.%I', n.nspname, c.relname)              AS "table",
           k.conname || ': its triggers are disabled'                   AS what,
           greatest(c.reltuples, 0)::bigint                              AS rows,
           ARRAY[format('ALTER TABLE %I.%I ENABLE TRIGGER ALL', n.nspname, c.relname)]
                                                                         AS statements
      FROM pg_trigger t
      JOIN pg_constraint k ON k.oid = t.tgconstraint
      JOIN pg_class c      ON c.oid = t.tgrelid
      JOIN pg_namespace n  ON n.oid = c.relnamespace
     WHERE t.tgisinternal AND t.tgenabled = 'D' AND k.contype = 'f' AND {_SPACES}
     ORDER BY 1, 2
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

UNVALIDATED: Final = f"""
    SELECT format('%I.%I', n.nspname, c.relname)                        AS "table",
           k.conname || ': ' || pg_get_constraintdef(k.oid)              AS what,
           greatest(c.reltuples, 0)::bigint                              AS rows,
           ARRAY[format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I',
                        n.nspname, c.relname, k.conname)]                AS statements
      FROM pg_constraint k
      JOIN pg_class c     ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT k.convalidated AND k.contype IN ('f', 'c') AND k.conparentid = 0 AND {_SPACES}
     ORDER BY 1, 2
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

# A partition has what its parent has.
NO_PRIMARY_KEY: Final = f"""
    SELECT format('%I.%I', n.nspname, c.relname)                        AS "table",
           'rows cannot be told apart, nor replicated logically'         AS what,
           greatest(c.reltuples, 0)::bigint                              AS rows,
           '{{}}'::text[]                                                AS statements
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')
       AND NOT EXISTS (SELECT FROM pg_depend d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                          AND d.deptype = 'e')
       AND {_SPACES}
     ORDER BY c.reltuples DESC, 1
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

# A column called customer_id or customerId beside a table customer, customers, Customer whose
# primary key is one column of the same type.
MISSING_FOREIGN_KEY: Final = f"""
      WITH child AS MATERIALIZED (
        SELECT c.oid, n.nspname, c.relname, c.reltuples, a.attname, a.attnum, a.atttypid,
               replace(lower(regexp_replace(a.attname, '(_id|Id)$', '')), '_', '') AS base
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
           AND a.attname ~ '.(_id|Id)$' AND {_SPACES}
           AND NOT EXISTS (SELECT FROM pg_constraint k
                            WHERE k.conrelid = c.oid AND k.contype = 'f'
                              AND a.attnum = ANY (k.conkey))),
           parent AS MATERIALIZED (
        SELECT c.oid, n.nspname, c.relname, a.attname, a.atttypid,
               replace(lower(c.relname), '_', '') AS base
          FROM pg_constraint k
          JOIN pg_class c     ON c.oid = k.conrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
         WHERE k.contype = 'p' AND cardinality(k.conkey) = 1 AND NOT c.relispartition
           AND {_SPACES})
    SELECT format('%I.%I', h.nspname, h.relname)                        AS "table",
           format('%I looks like a reference to %I.%I', h.attname, p.nspname, p.relname) AS what,
           greatest(h.reltuples, 0)::bigint                              AS rows,
           ARRAY[format('ALTER TABLE %I.%I ADD CONSTRAINT %I FOREIGN KEY (%I) REFERENCES %I.%I'
                        || ' (%I) NOT VALID', h.nspname, h.relname,
                        left(h.relname || '_' || h.attname, 58) || '_fkey', h.attname,
                        p.nspname, p.relname, p.attname),
                 format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', h.nspname, h.relname,
                        left(h.relname || '_' || h.attname, 58) || '_fkey')]
                                                                         AS statements
      FROM child h
      JOIN parent p ON p.nspname = h.nspname AND p.atttypid = h.atttypid AND p.oid <> h.oid
       AND p.base IN (h.base, h.base || 's', h.base || 'es', regexp_replace(h.base, 'y$', 'ies'))
     ORDER BY h.reltuples DESC, 1, h.attname
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

# Names of what identifies a thing among people. An index on lower(x) makes x unique as well.
MISSING_UNIQUE: Final = f"""
    SELECT format('%I.%I', n.nspname, c.relname)                        AS "table",
           a.attname || CASE WHEN s.n_distinct = -1 THEN ': every value differs by statistics'
                             WHEN s.n_distinct IS NULL THEN ': looks like a key of people'
                             ELSE ': looks like a key of people, and has duplicates' END AS what,
           greatest(c.reltuples, 0)::bigint                              AS rows,
           CASE WHEN coalesce(s.n_distinct, -1) = -1
                THEN ARRAY[format('CREATE UNIQUE INDEX CONCURRENTLY %I ON %I.%I (%I)',
                                  left(c.relname || '_' || a.attname, 59) || '_key',
                                  n.nspname, c.relname, a.attname)]
                ELSE '{{}}' END                                          AS statements
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
                          AND s.attname = a.attname AND NOT s.inherited
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND a.attname ~* '^(e_?mail|e_?mail_?address|slug|user_?name|login|handle|sku|isbn|iban)$'
       AND {_SPACES}
       AND NOT EXISTS (SELECT FROM pg_index i
                        WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL
                          AND (a.attnum = ANY (i.indkey::int2[])
                               OR pg_get_expr(i.indexprs, i.indrelid) ~ ('\\m' || a.attname)))
     ORDER BY c.reltuples DESC, 1, a.attname
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

MISSING_CHECK: Final = f"""
    SELECT format('%I.%I', n.nspname, c.relname)                        AS "table",
           a.attname || ': no check says what an e-mail address is'      AS what,
           greatest(c.reltuples, 0)::bigint                              AS rows,
           ARRAY[format('ALTER TABLE %I.%I ADD CONSTRAINT %I CHECK (%I ~* %L) NOT VALID',
                        n.nspname, c.relname, left(c.relname || '_' || a.attname, 56) || '_format',
                        a.attname, $1::text),
                 format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname,
                        left(c.relname || '_' || a.attname, 56) || '_format')] AS statements
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type y      ON y.oid = a.atttypid
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND a.attname ~* '(^|_)e_?mail(_?address)?$|[a-z]Email(Address)?$'
       AND y.typcategory = 'S' AND {_SPACES}
       AND NOT EXISTS (SELECT FROM pg_constraint k
                        WHERE k.contype = 'c'
                          AND (k.conrelid = c.oid AND a.attnum = ANY (k.conkey)
                               OR k.contypid = a.atttypid))
     ORDER BY c.reltuples DESC, 1, a.attname
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

# Each delete of a parent, and each change of its key, reads the whole child without one.
UNINDEXED_FOREIGN_KEY: Final = f"""
    SELECT format('%I.%I', n.nspname, c.relname)                        AS "table",
           k.conname || ': each delete in ' || k.confrelid::regclass || ' reads the whole table'
                                                                         AS what,
           greatest(c.reltuples, 0)::bigint                              AS rows,
           ARRAY[format('CREATE INDEX CONCURRENTLY ON %I.%I (%s)', n.nspname, c.relname,
                 (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY o.place)
                    FROM unnest(k.conkey) WITH ORDINALITY o(attnum, place)
                    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = o.attnum))]
                                                                         AS statements
      FROM pg_constraint k
      JOIN pg_class c     ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND c.reltuples >= $1 AND {_SPACES}
       AND NOT EXISTS (SELECT FROM pg_index i
                        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL
                          AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
     ORDER BY c.reltuples DESC, 1
     LIMIT {FINDINGS_MAX}
"""  # noqa: S608 - constants of ours

# Below it a scan of the whole table costs nothing.
UNINDEXED_ROWS_MIN: Final = 10_000

_QUERIES: Final[Sequence[tuple[FindingKind, str, tuple[object, ...], bool]]] = (
    (FindingKind.DISABLED, DISABLED, (), False),
    (FindingKind.UNVALIDATED, UNVALIDATED, (), False),
    (FindingKind.NO_PRIMARY_KEY, NO_PRIMARY_KEY, (), False),
    (FindingKind.MISSING_FOREIGN_KEY, MISSING_FOREIGN_KEY, (), True),
    (FindingKind.MISSING_UNIQUE, MISSING_UNIQUE, (), True),
    (FindingKind.MISSING_CHECK, MISSING_CHECK, (EMAIL_PATTERN,), True),
    (FindingKind.UNINDEXED_FOREIGN_KEY, UNINDEXED_FOREIGN_KEY, (float(UNINDEXED_ROWS_MIN),), False),
)


async def constraint_findings(db: Fetcher) -> Sequence[Finding]:
    """Everything that is found, the worst kind first, within it the largest tables."""
    found: list[Finding] = []
    for kind, query, args, is_guess in _QUERIES:
        found += [
            Finding(
                kind=kind,
                table=row["table"],
                what=row["what"],
                rows=row["rows"],
                statements=tuple(row["statements"]),
                is_guess=is_guess,
            )
            for row in await db.fetch(query, *args)
        ]
    return found
