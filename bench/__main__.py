"""`python -m bench [NAME…]`: run the benchmarks, print the table, and keep it in docs."""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench.table import Result, as_markdown

NAMES = (
    "ack",
    "start",
    "backup",
    "recovery",
    "proof",
    "audit",
    "votes",
    "clicks",
    "doors",
    "forecast",
    "alert_noise",
    "indexes",
    "collection",
    "fleet",
    "backfill",
    "ledger",
    "switchover",
    "drill",
)
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
TEXT = """# Benchmarks

`make bench` runs all of this on one machine in one run and writes this page. Machines are noisy:
read the ratios, not the digits.

Last run: {at}, Python {python}, {cores} cores shared with the load generator and the servers,
durability on.

{table}

What misses its aim, and why:

- **Commands per second at 50 concurrent**: an acknowledged command costs about 2.3 ms of our
  processor time, thinly spread over form parsing, policy, canonical JSON and the driver, and 1.3
  ms of PostgreSQL's, on the two cores that the load generator uses too. The floor costs 0.3 ms.
- **Backup against `pg_basebackup -Fp`**: on this idle machine a plain copy of 1.1 GB takes 4 s,
  so compression, SHA-256 and row counts cost about what the saved bytes gain. On the same machine
  under other load, three earlier runs measured 0.41, 0.53 and 0.84.
- **Backup against the same by hand and pgBackRest**: 0.6 to 0.8 s of a backup of 1.1 GB is ours:
  most of it exact row counts, by which a restored copy is judged, then what is synced to the disk
  before a backup counts. It grows with the rows, and is bounded by a time limit.
- **Verification** reads every page and every index entry: from 1 to 5 GB it takes a little longer
  than in proportion, as the copy no longer fits into the page cache beside its source.

What the rows of health do not say:

- **A look at everything with 10,000 tables** is taken every 15 minutes, or every hour where it
  takes longer than a quarter of a second: most of it is `pg_database_size`, one stat() per file.
  On a database that was vacuumed there are half as many files again: it took 214 ms once.
- **Alerts that were missed** are short ones whose noise broke the `for` span, as many as with `for`
  alone. **The index that is wider than needed** has one column more than the one that was expected.
- Shapes and method of the forecasts, and schema and advice of the indexes, have the same authors.

What the rows of backfills do not say:

- **Two ranges against one UPDATE**: at 2 million rows the second that it first looks at others and
  the last sweep weigh more than at 5 million. Four ranges on two cores take them from the server.
- **The estimate** comes from a trial that commits, here of 3 and 5 s, each on a fresh copy right
  before the backfill, beside a load of about 3 of other work. Whole trials differed as much from
  the backfill, 0.88 to 1.31: the machine does. At a load of 10 to 18 single rounds went from 0.4
  to 3, which says nothing. At 5 million rows it was not measured. Batches that were rolled back
  said 1.39 and 1.53: factors of our own were 1.21 of it, the first batch of each session, twice as
  slow as others, 1.1 to 1.2. They wrote 860 to 1,260 bytes of WAL a row, the backfill 526, and on
  pages that had been touched before 450: the rest are whole pages, whose time was not told apart.
- **Others beside two ranges** are at the limit of twice their p99 on two cores: that is where the
  throttle steers to. With four ranges it waits too late. The guide's batches above a million rows
  are measured at the start, in the middle and at the end; beside a load only the first ones are.
"""


async def main(names: list[str]) -> None:
    """Measure `names`, or all of them; only a complete run is kept."""
    results: list[Result] = []
    for name in names or NAMES:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        found = await importlib.import_module(f"bench.{name}").measure()
        print(as_markdown(found), file=sys.stderr, flush=True)
        results += found
    table = as_markdown(results)
    print(table)
    if not names:
        PAGE.write_text(
            TEXT.format(
                at=f"{datetime.now(UTC):%Y-%m-%d}",
                python=platform.python_version(),
                cores=os.cpu_count(),
                table=table,
            ),
            encoding="utf-8",
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
