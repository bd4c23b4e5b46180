"""What a stored request's card offers besides deciding, sealed as it is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import ValidationError

from approvals.lineage import OriginKind, latest
from approvals.records import RequestRecord
from approvals.words import State, Verdict
from bot.choices import Choice, Choices, Todo, seen_of
from bot.views.menu import Entry, Menu
from jobs.operation import Operation, UndoCall

# Ended requests may be asked again for as long as anybody scrolls back.
_KEPT_FOR: Final = timedelta(days=3650)
_OURS: Final = "twokey"
_ENDED: Final = frozenset(
    {State.EXPIRED, State.DENIED, State.CANCELLED, State.REFUSED, State.FAILED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Menus:
    """Makes the menu of a card."""

    choices: Choices
    operations: Mapping[str, Operation]

    def of(self, record: RequestRecord) -> Menu:
        """What can be done with a request as it stands."""
        followers = record.detail.followers
        until = undo_until(record, self.operations)
        return Menu(
            entries=tuple(self._entries(record, until)),
            again_of=record.detail.again,
            undo_of=record.detail.undo_of,
            asked_again_as=latest(followers, OriginKind.AGAIN),
            undone_as=latest(followers, OriginKind.UNDO),
            undo_until=until,
        )

    def _entries(self, record: RequestRecord, until: datetime | None) -> Iterator[Entry]:
        repeated = latest(record.detail.followers, OriginKind.AGAIN) is not None
        known = record.operation in self.operations
        if record.state is State.FAILED and known and not repeated:
            yield self._entry(
                record, Todo.RETRY, "Retry",
                asks="It is planned anew and becomes a request of its own: whoever the policy "
                "names today must agree again.",
            )  # fmt: skip
        if record.state in _ENDED and known and not repeated:
            yield self._entry(record, Todo.AGAIN, "Ask again")
        if until is not None:
            yield self._entry(record, Todo.UNDO, "Undo", expires_at=until)
        if was_sent_back(record) and known:
            yield self._entry(
                record, Todo.PLAN_AGAIN, "Plan again",
                asks="The plan is made anew from what stands now. Votes for another plan than "
                "this one do not count for it.",
            )  # fmt: skip
        if record.state in {State.PENDING, State.APPROVED} and _is_voted(record):
            yield self._entry(
                record, Todo.WITHDRAW, "Withdraw my vote",
                about="Whoever has voted may take it back", in_menu=True,
            )  # fmt: skip
            yield self._entry(
                record, Todo.WAITING, "What waits for me",
                about="Everything that you may agree to now", in_menu=True,
            )  # fmt: skip

    def _entry(
        self,
        record: RequestRecord,
        todo: Todo,
        text: str,
        *,
        expires_at: datetime | None = None,
        about: str = "",
        asks: str = "",
        in_menu: bool = False,
    ) -> Entry:
        choice = Choice(
            todo=todo,
            request_id=record.id,
            seen=seen_of(record),
            expires_at=expires_at or record.asked_at + _KEPT_FOR,
        )
        value = self.choices.close(choice)
        return Entry(
            action=str(todo), text=text, value=value, about=about, asks=asks, in_menu=in_menu
        )


def is_pausable(record: RequestRecord, operations: Mapping[str, Operation]) -> bool:
    """Whether this request has a run that could wait, or waits."""
    operation = operations.get(record.operation)
    running = record.state is State.EXECUTING and record.run_id is not None
    return running and operation is not None and operation.is_pausable


def ends_in_order(record: RequestRecord, operations: Mapping[str, Operation]) -> bool:
    """Whether stopping this request's run is to have it come to a safe end by itself."""
    operation = operations.get(record.operation)
    return operation is not None and operation.ends_in_order


def abort_words(record: RequestRecord, operations: Mapping[str, Operation]) -> str:
    """What stopping its run would mean, as its operation says; '' where it says nothing."""
    operation = operations.get(record.operation)
    return "" if operation is None else operation.abort_words


def was_sent_back(record: RequestRecord) -> bool:
    """Whether a worker turned a grant back, so that it waits for votes again."""
    ending = record.detail.ending
    return record.state is State.PENDING and ending is not None and ending.by == _OURS


def undo_of(record: RequestRecord, operations: Mapping[str, Operation]) -> UndoCall | None:
    """What undoes a request that is done; None where nothing does."""
    operation = operations.get(record.operation)
    if record.state is not State.DONE or operation is None or operation.undo is None:
        return None
    try:
        params = operation.params.model_validate(record.params)
    except ValidationError:
        return None  # it was asked for under other parameters than there are today
    call = operation.undo(params, record.detail.numbers)
    return call if call is not None and call.operation in operations else None


def undo_until(record: RequestRecord, operations: Mapping[str, Operation]) -> datetime | None:
    """Until when a request that is done can be undone; None: it cannot be."""
    call = undo_of(record, operations)
    return record.ended_at + call.within if call and record.ended_at else None


def _is_voted(record: RequestRecord) -> bool:
    return any(vote.verdict is not Verdict.WITHDRAWN for vote in record.votes)
