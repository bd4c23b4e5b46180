"""`/db forecast`: the answer as people see it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from bot.views.answer import answer_message
from commands import forecast
from commands.forecast import Params
from jobs.operation import JobError
from store.connect import Store
from store.sizes import DATABASE
from tests.bot.views.cards import problems
from tests.commands.conftest import JobMaker
from tests.jobs.test_capacity import BOUGHT, GB, growing, stored


async def test_a_forecast_is_one_screen_that_slack_takes(job: JobMaker, store: Store) -> None:
    await stored(store, 90, lambda n: {DATABASE: growing(n), "table public.events": n * GB // 5})
    made = job()
    made.database = BOUGHT
    answer = await forecast.answer(made, Params(database="orders"))
    facts = dict(answer.facts)
    assert facts["Now"] == "127 GB"
    assert facts["Growth a day"].startswith("+30")
    assert facts["In 365 days"].endswith("rough)")
    assert answer.table is not None
    assert answer.table.rows[0][0] == "public.events"
    assert answer.numbers["days_until_full_p50"] == pytest.approx(243, abs=15)
    message = answer_message(answer)
    assert problems(message) == []
    assert len(message.charts) == 1
    assert "Size of orders" in message.text


async def test_too_little_history_is_refused_with_a_date(job: JobMaker, store: Store) -> None:
    await stored(store, 13, lambda n: {DATABASE: growing(n)})
    made = job()
    made.database = replace(BOUGHT, name="orders")
    with pytest.raises(JobError, match="measured on 13 days") as refused:
        await forecast.answer(made, Params(database="orders"))
    assert "23 Nov 2026" in refused.value.next_step


def test_no_process_loads_numpy_or_matplotlib_before_it_draws() -> None:
    modules = "commands.forecast, jobs.capacity, bot.app"
    check = f"import sys, {modules}; sys.exit(len({{'numpy', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
