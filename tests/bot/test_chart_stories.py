"""A query's answer with a chart, through the whole bot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot import pictures
from jobs.operation import Answer, Context
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.test_charts import CHART, PNG, lack_charts
from tests.bot.world import CHANNEL, OPERATIONS, OneDatabase, running
from tests.conftest import Target


async def drawn(context: Context, params: OneDatabase) -> Answer:
    return Answer(title=f"Drawing of {params.database}", charts=(CHART,))


@pytest.mark.parametrize(
    ("workspace", "block"), [("all", "data_visualization"), ("no charts", "image")]
)
async def test_who_asks_sees_a_chart_whether_slack_draws_it_or_not(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, workspace: str, block: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(pictures, "render", lambda _: PNG)
    if workspace == "no charts":
        lack_charts(slack)
    draw = replace(OPERATIONS["colours"], name="draw", answer=drawn, example="/db draw orders")
    async with running(
        slack, store, tmp_path, target.dsn, http=True, operations={**OPERATIONS, "draw": draw}
    ):
        typed = await slack.command("U0ANA", CHANNEL, "/db draw orders")
        assert typed.ok

        def found() -> list[dict[str, Any]]:
            return slack.ephemerals("U0ANA")

        [message] = await slack.wait_for(found, seconds=30)
        assert block in [one["type"] for one in message["blocks"]]
