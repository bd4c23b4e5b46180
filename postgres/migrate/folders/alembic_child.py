"""Runs in a child process, with the application's interpreter: revisions as SQL, as JSON.

Standard library and Alembic alone: this file is given to another interpreter, which has none of
ours. Called as `python alembic_child.py` with a JSON object in TWOKEY_ALEMBIC_ASK: `folder`,
`versions` (null: all) and `chars_max`. Answers on standard output with a JSON object; what the
application prints goes to standard error.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

# Refers to nobody: env.py wants some URL, and must reach no server while SQL is only written.
URL = "postgresql://twokey@127.0.0.1:1/offline"


def main() -> None:
    """Answer the question in the environment."""
    ask = json.loads(os.environ.pop("TWOKEY_ALEMBIC_ASK"))
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the application prints is no part of the answer
    os.chdir(ask["folder"])
    sys.path[0] = ask["folder"]  # as with `python -m alembic`; it was the folder of this file
    with answer_to:
        json.dump(_answer(ask), answer_to)


def _answer(ask: dict[str, Any]) -> dict[str, Any]:
    from alembic.config import Config  # noqa: PLC0415  (the application's, after the path is set)
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config("alembic.ini")
    config.set_main_option("sqlalchemy.url", URL)
    scripts = ScriptDirectory.from_config(config)
    revisions = [_described(each) for each in scripts.walk_revisions("base", "heads")]
    answer: dict[str, Any] = {"heads": sorted(scripts.get_heads()), "table": "", "schema": ""}
    places = [scripts.dir, *(scripts.version_locations or ())]
    answer["places"] = [str(Path(each).resolve()) for each in places]
    wanted = ask["versions"]
    for each in revisions:
        if wanted is None or each["revision"] in wanted:
            for way in ("up", "down"):
                each[way] = _rendered(config, scripts, each, way, ask["chars_max"], answer)
    if not answer["table"]:
        _written(config, scripts, lambda _heads, _context: [], None, answer)
    answer["revisions"] = revisions
    return answer


def _described(script: Any) -> dict[str, Any]:
    down = script.down_revision or ()
    return {
        "revision": script.revision,
        "parents": [down] if isinstance(down, str) else list(down),
        "depends_on": bool(script.dependencies),
        "doc": (script.doc or "").strip().splitlines()[0] if (script.doc or "").strip() else "",
        "path": str(Path(script.path).resolve()),
    }


def _rendered(
    config: Any, scripts: Any, revision: dict[str, Any], way: str, chars_max: int, answer: Any
) -> dict[str, str]:
    """`sql`, or `problem` when the revision cannot be written down without a database."""
    from alembic.runtime.migration import MigrationStep  # noqa: PLC0415

    name, parents, is_up = revision["revision"], revision["parents"], way == "up"
    make = MigrationStep.upgrade_from_script if is_up else MigrationStep.downgrade_from_script

    def steps(_heads: Any, _context: Any) -> list[Any]:
        return [make(scripts.revision_map, scripts.get_revision(name))]

    starting = (parents or None) if is_up else [name]
    written = _written(config, scripts, steps, starting, answer)
    if len(written.get("sql", "")) > chars_max:
        return {"problem": f"its SQL has more than {chars_max} characters"}
    return written


def _written(
    config: Any, scripts: Any, steps: Any, starting: list[str] | None, answer: dict[str, Any]
) -> dict[str, str]:
    """Run env.py with these steps; also learn how the version table is called."""
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415

    config.output_buffer = written = io.StringIO()
    try:
        env = EnvironmentContext(config, scripts, fn=steps, as_sql=True, starting_rev=starting)
        vars(env)["configure"] = _with_plain_percents(env.configure)
        with env:
            scripts.run_env()
            context = env.get_context()
            answer["table"] = context.version_table
            answer["schema"] = context.version_table_schema or ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (the application's code may do anything)
        text = str(error).strip().splitlines()
        return {"problem": f"{type(error).__name__}: {text[0] if text else ''}"[:500]}
    return {"sql": written.getvalue()}


def _with_plain_percents(configure: Any) -> Any:
    """Alembic's configure, for SQL with a percent sign once, as an execution would have it.

    The usual driver doubles them for its own placeholders, unless env.py says otherwise.
    """

    def configured(*args: Any, **kw: Any) -> None:
        kw["dialect_opts"] = {"paramstyle": "named", **(kw.get("dialect_opts") or {})}
        configure(*args, **kw)

    return configured


if __name__ == "__main__":
    main()
