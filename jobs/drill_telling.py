"""What any drill says of itself: how far it is, and why it is to end."""

from __future__ import annotations

from datetime import timedelta

from jobs.drill_words import Phase
from jobs.operation import Job
from jobs.text import span_text
from store.drills import note_phase


async def tell_phase(job: Job, phase: Phase, text: str) -> None:
    """Tell that a phase is reached, and keep it."""
    await job.report(f"{phase.capitalize()}: {text}.".replace("..", "."))
    async with job.store.begin() as conn:
        await note_phase(conn, job.request_id, phase)


def why_stopped(job: Job, limit: timedelta, *, is_over: bool) -> str:
    """Who or what wants it to end; '' while nobody does. `is_over`: it took longer than `limit`."""
    if job.is_cancelled:
        return f"{job.cancelled_by or 'Somebody'} stopped it"
    return f"It took longer than its limit of {span_text(limit)}" if is_over else ""
