"""A disaster is rehearsed: broken on purpose, measured, and put back as it was.

The flow is a list of steps, each of which a next worker finds done or goes on with. Whatever stops
it (a person, its time limit, something that fails), it ends by `jobs.drill_safety`: what the
servers say decides whether the old primary is brought back or the new one is gone on with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import JsonValue

from jobs.cluster_of import specs_of
from jobs.cluster_settings import DrillKind
from jobs.drill_ending import bring_to_safe_end
from jobs.drill_hands import (
    INJECT_LIMIT,
    REJOIN_LIMIT,
    DrillOrder,
    StopAskedError,
    await_loss,
    await_primary,
    began,
    bring_back_all,
    configuration,
    inject_fault,
    prove,
    told,
)
from jobs.drill_ledger import cost_from, cost_json, cost_of_standby, cost_text
from jobs.drill_state import STEP_LIMIT, Body, DrillState
from jobs.drill_ways import drill_checks
from jobs.drill_words import Difference, Phase
from jobs.failing_over import Order, change_primary, look, refuse_failed
from jobs.operation import Attempt, JobError, Mode
from jobs.own_store import refuse_shared_store
from postgres.cluster.candidates import bytes_behind, sender_of
from postgres.cluster.words import ClusterKind, ClusterSeen
from postgres.errors import PostgresError

CHECK_LIMIT: Final = timedelta(minutes=2)
# What decides how long a change of roles takes.
_TIMINGS: Final = (
    "ttl", "loop_wait", "retry_timeout", "primary_start_timeout", "failsafe_mode",
    "synchronous_mode", "maximum_lag_on_failover",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Drill(DrillState):
    """One life of a drill's run."""

    async def perform(self) -> None:
        """Go through it, to its end or to a safe end. What went wrong is in `error`."""
        try:
            await self._check()
            is_first = await self._first_to_write()
        except (JobError, PostgresError) as error:
            self.failed(error)
            return
        self.may_be_broken = not is_first
        try:
            async with self.ledger.writing(is_first=is_first):
                await self._to_the_end()
        except PostgresError as error:  # the ledger could not begin
            self.failed(error)
            await self._be_safe()

    async def _to_the_end(self) -> None:
        try:
            await self._through()
        except StopAskedError:
            self.stopped = self.stopped or self.why_stopped()
            await self._be_safe()
        except (JobError, PostgresError) as error:
            self.failed(error)
            await self._be_safe()

    async def _through(self) -> None:
        await self.reach(Phase.WRITING, "ledger", self._baseline, mode=Mode.RETRYABLE)
        self.heed()
        injected = await self._inject()
        self.heed()
        if self.order.moves_primary:
            await self._take_over()
        else:
            await self._see_loss()
        await self._connect()
        await self._measure(injected)
        await self._restore_redundancy()
        await self._switch_back()
        await self._compare()

    # Each part.

    async def _check(self) -> None:
        async def body(_: Attempt) -> JsonValue:
            seen, before = await self._look_before()
            candidate = sender_of(seen.primary, self.order.candidate) if seen.primary else None
            return told(
                self.job.now,
                f"{self.order.leader} takes writes, everything streams",
                before=before,
                started={each.name: began(each) for each in seen.nodes},
                timings=_timings(seen),
                lag=bytes_behind(candidate) if candidate else None,
            )

        done = await self.reach(Phase.CHECKED, "check", body, mode=Mode.RETRYABLE)
        self.before, self.started = dict(done["before"]), dict(done["started"])
        self.timings, self.lag_bytes = dict(done["timings"]), done["lag"]

    async def _look_before(self) -> tuple[ClusterSeen, dict[str, str]]:
        """What was planned still holds, all of it.

        Raises:
            JobError: it does not.
        """
        await refuse_shared_store(
            self.job.store,
            self.job.database.name,
            specs_of(self.settings),
            clock=lambda: self.job.now,
        )
        outlook = await look(self.job, to=self.order.candidate, forced=False)
        refuse_failed(outlook.preflight.checks)
        if outlook.preflight.leader != self.order.leader:
            raise JobError(
                f"{outlook.preflight.leader} is the primary now, not {self.order.leader}."
                " Nothing was harmed.",
                next_step="Ask for the drill again.",
            )
        refuse_failed(
            drill_checks(
                self.settings,
                outlook.seen,
                kind=self.order.kind,
                victim=self.spec(self.order.victim),
                candidate=self.order.candidate,
                environment=self.job.database.environment,
            )
        )
        return outlook.seen, await configuration(self.job)

    async def _first_to_write(self) -> bool:
        """Whether no earlier life of this run has begun a ledger."""
        is_first = False

        async def body(_: Attempt) -> JsonValue:
            nonlocal is_first
            is_first = True
            return None

        await self.job.step("open ledger", body, mode=Mode.RETRYABLE, time_limit=CHECK_LIMIT)
        return is_first

    async def _baseline(self, _: Attempt) -> JsonValue:
        candidate = self.order.candidate if self.order.moves_primary else ""
        text = await self.ledger.baseline(candidate)
        return told(self.job.now, text)

    async def _inject(self) -> datetime:
        async def body(attempt: Attempt) -> JsonValue:
            if self.order.fault is None:
                return told(self.job.now, f"{self.order.victim} is told to hand over")
            return await inject_fault(self.job, attempt, self.order, self.started)

        self.may_be_broken = True
        done = await self.reach(
            Phase.INJECTED, "inject", body, mode=Mode.RESUMABLE, limit=2 * INJECT_LIMIT
        )
        return datetime.fromisoformat(done["at"])

    async def _take_over(self) -> None:
        done = await self.step(
            "take over", self._changing(), mode=Mode.RESUMABLE, limit=self._change_limit()
        )
        if done.get("stopped"):
            raise StopAskedError
        if detected := done.get("detected"):
            text = f"{self.order.victim} is missed"
            await self.reached(Phase.DETECTED, {"at": detected, "text": text})
        self.primary = str(done["primary"])
        await self.reached(Phase.PROMOTED, done)

    def _changing(self) -> Body:
        """Who changes the primary: we, as in a failover, or the agents by themselves."""
        order, is_pair = self.order, self.settings.kind is ClusterKind.PAIR

        async def change(attempt: Attempt) -> JsonValue:
            forced = order.fault is not None
            roles = Order(leader=order.leader, candidate=order.candidate, forced=forced)
            detected = self.job.now if forced else None
            done = await change_primary(self.job, attempt, roles)
            text = f"{order.candidate} takes writes"
            if isinstance(done, dict) and done["timeline"]:
                text += f", timeline {done['timeline']}"
            return told(
                self.job.now,
                text,
                primary=order.candidate,
                detected=detected.isoformat() if detected else None,
            )

        async def wait(_: Attempt) -> JsonValue:
            try:
                return await await_primary(
                    self.job, self.settings, order, self.started,
                    is_stopped=lambda: bool(self.why_stopped()),
                )  # fmt: skip
            except StopAskedError:
                return told(self.job.now, "stopped", stopped=True)

        return change if is_pair or order.fault is None else wait

    async def _see_loss(self) -> None:
        async def body(_: Attempt) -> JsonValue:
            return await await_loss(self.job, self.settings, self.order)

        await self.reach(
            Phase.DETECTED, "see loss", body, mode=Mode.RETRYABLE, limit=self._change_limit()
        )

    async def _connect(self) -> None:
        without = (
            self.order.victim if self.order.fault and self.order.victim != self.primary else ""
        )

        async def body(_: Attempt) -> JsonValue:
            return await prove(self.job, self.settings, primary=self.primary, without=without)

        done = await self.step("connect", body, mode=Mode.RETRYABLE, attempts=2)
        self.connectivity, self.is_connected = str(done["text"]), bool(done["proven"])
        if self.is_connected:
            await self.reached(Phase.CONNECTED, done)

    async def _measure(self, injected: datetime) -> None:
        since = self.last(Phase.PROMOTED) or injected

        async def body(_: Attempt) -> JsonValue:
            cost = await self.ledger.cost(
                self.spec(self.primary).target, injected_at=injected, since=since
            )
            if cost and not self.order.moves_primary:
                cost = cost_of_standby(cost)
            return told(self.job.now, cost_text(cost, self.ledger.problem), cost=cost_json(cost))

        done = await self.reach(Phase.MEASURED, "measure", body, mode=Mode.RETRYABLE, attempts=3)
        self.cost = cost_from(done)

    async def _restore_redundancy(self) -> None:
        async def body(_: Attempt) -> JsonValue:
            return await bring_back_all(self.job, self.order, primary=self.primary)

        limit = (len(self.settings.nodes) + 1) * REJOIN_LIMIT
        await self.reach(
            Phase.REDUNDANT, "redundancy", body, mode=Mode.RESUMABLE, limit=limit, attempts=2
        )
        self.is_redundant = True

    async def _switch_back(self) -> None:
        """As in a planned switchover, with all its checks: what is not well is left as it is."""
        leader = self.order.leader
        if self.primary == leader or not self.order.back:
            return
        self.is_back = False
        if why := self.why_stopped():
            self.stopped = why
            return
        try:
            done = await self.step(
                "switch back", self._back, mode=Mode.RESUMABLE, limit=self._change_limit()
            )
        except (JobError, PostgresError) as error:
            self.trouble.append(f"It was not switched back: {error.problem}")
            await self._be_safe("safe after that", self._there())
            return
        self.primary, self.is_back = leader, True
        await self.reached(Phase.SWITCHED_BACK, done)
        back = await self.step("measure back", self._measuring_back(done), mode=Mode.RETRYABLE)
        self.cost_back = cost_from(back)
        await self._settle()

    async def _back(self, attempt: Attempt) -> JsonValue:
        asked = self.job.now.isoformat()
        if isinstance(attempt.checkpoint, Mapping):
            asked = str(attempt.checkpoint["at"])
        back = Order(leader=self.primary, candidate=self.order.leader, forced=False)
        await change_primary(self.job, attempt, back)
        return told(self.job.now, f"{self.order.leader} takes writes again", asked=asked)

    def _measuring_back(self, done: Mapping[str, Any]) -> Body:
        async def body(_: Attempt) -> JsonValue:
            cost = await self.ledger.cost(
                self.spec(self.order.leader).target,
                injected_at=datetime.fromisoformat(done["asked"]),
                since=datetime.fromisoformat(done["at"]),
                before=self.cost,
            )
            return told(self.job.now, "", cost=cost_json(cost))

        return body

    async def _settle(self) -> None:
        """After the way back the others must follow too, and applications write."""

        async def body(_: Attempt) -> JsonValue:
            await bring_back_all(self.job, self.order, primary=self.primary)
            return await prove(self.job, self.settings, primary=self.primary, without="")

        done = await self.step("settle", body, mode=Mode.RESUMABLE, limit=STEP_LIMIT, attempts=2)
        if not done["proven"]:
            self.is_connected = False
            self.connectivity = f"after the switch back: {done['text']}"

    async def _compare(self) -> None:
        async def body(_: Attempt) -> JsonValue:
            after = await configuration(self.job)
            found = [
                {"name": name, "before": self.before.get(name, ""), "after": after.get(name, "")}
                for name in sorted({*self.before, *after})
                if self.before.get(name) != after.get(name)
            ]
            text = f"{len(found)} settings differ" if found else "as it was"
            return told(self.job.now, f"Configuration: {text}", differences=found)

        done = await self.reach(Phase.COMPARED, "compare", body, mode=Mode.RETRYABLE, attempts=3)
        self.differences = tuple(Difference(**each) for each in done["differences"])

    def _there(self) -> DrillOrder:
        """What the way back was: a switchover, with nothing broken to be taken back."""
        return replace(self.order, kind=DrillKind.SWITCHOVER, victim=self.primary)

    async def _be_safe(self, name: str = "safe end", order: DrillOrder | None = None) -> None:
        """Whatever stopped it: nothing stays broken that can be mended without a risk."""

        async def body(_: Attempt) -> JsonValue:
            return await bring_to_safe_end(
                self.job, self.settings, order or self.order, is_injected=self.may_be_broken
            )

        try:
            done = await self.step(
                name, body, mode=Mode.RESUMABLE, limit=3 * REJOIN_LIMIT, attempts=2
            )
        except (JobError, PostgresError) as error:
            self.unsafe = error
            self.trouble.append(error.problem)
            return
        self.trouble += [str(done["text"])] if self.may_be_broken else []
        self.primary, self.is_redundant = str(done["primary"]), True
        if self.may_be_broken and self.cost is None:
            await self._late_measure()

    async def _late_measure(self) -> None:
        injected = self.last(Phase.INJECTED) or self.started_at

        async def body(_: Attempt) -> JsonValue:
            target = self.spec(self.primary).target
            cost = await self.ledger.cost(target, injected_at=injected, since=self.job.now)
            return told(self.job.now, cost_text(cost, self.ledger.problem), cost=cost_json(cost))

        try:
            done = await self.step("late measure", body, mode=Mode.RETRYABLE, attempts=2)
        except (JobError, PostgresError) as error:
            self.trouble.append(error.problem)
            return
        self.cost = cost_from(done)

    def _change_limit(self) -> timedelta:
        return 2 * CHECK_LIMIT + 3 * self.settings.limits.timeout


def _timings(seen: ClusterSeen) -> dict[str, str]:
    told_of = seen.agent.settings if seen.agent else {}
    return {name: told_of[name] for name in _TIMINGS if name in told_of}
