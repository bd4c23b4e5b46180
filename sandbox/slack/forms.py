"""Submitting and closing modals, and what the app's answer does to the stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sandbox.slack import payloads
from sandbox.slack.actor import Delivery, told_since
from sandbox.slack.blocks import elements_of
from sandbox.slack.delivery import Dispatcher, Kind, Outcome
from sandbox.slack.errors import ApiError, CannotError
from sandbox.slack.methods.views import checked_view, pushed, updated
from sandbox.slack.platform import Platform
from sandbox.slack.viewstate import complaints, read_value, view_object
from sandbox.slack.workspace import Json, View

FAILED: Final = "We had some trouble connecting. Try again?"


class Forms:
    """A person's stack of modals."""

    def __init__(self, platform: Platform, dispatcher: Dispatcher) -> None:
        self._platform = platform
        self._workspace = platform.workspace
        self._dispatcher = dispatcher

    async def submit(self, *, user: str, view_id: str, values: Mapping[str, Any]) -> Delivery:
        """Press the submit button of the modal on top.

        `values` are by block_id, then action_id, in Slack's form or just the value.
        """
        view = self._top(user, view_id)
        blocks = view.payload["blocks"]
        view = self._workspace.replace_view(
            replace(view, values=_entered(blocks, view.values, values), failed=None)
        )
        if errors := complaints(blocks, view.values):
            return Delivery(errors=errors)
        payload = payloads.submission(
            self._workspace,
            person=self._workspace.people[user],
            view=view_object(self._workspace, view),
            trigger_id=self._platform.new_trigger(user, view=view_id),
        )
        mark = self._platform.next_ts()
        summary = f"view_submission {view.payload.get('callback_id', '')}"
        outcome = await self._dispatcher.send(Kind.INTERACTIVE, payload, summary=summary)
        return self._apply(view, outcome, mark)

    def _apply(self, view: View, outcome: Outcome, mark: str) -> Delivery:
        errors: Mapping[str, str] = {}
        error = FAILED if outcome.error else None
        if error is None:
            try:
                errors = self._react(view, outcome.body)
            except ApiError:
                error = FAILED
        if error and (now := self._workspace.view(view.id)):
            self._workspace.replace_view(replace(now, failed=error))
        return Delivery(
            status=outcome.status,
            ms=outcome.ms,
            error=error,
            errors=errors,
            ephemerals=told_since(self._workspace, view.user, mark),
            body=outcome.body,
        )

    def _react(self, view: View, body: Any) -> Mapping[str, str]:
        """Do what the app's answer asks for; the complaints, if it has any."""
        answer = body if isinstance(body, dict) else {}
        match answer.get("response_action"):
            case None:
                self._remove(view)
            case "clear":
                self._workspace.stacks[view.user] = []
                self._workspace.changes.bump()
            case "errors":
                return _known_errors(view, answer.get("errors"))
            case "update":
                payload = checked_view(answer.get("view"), kind="modal")
                updated(self._workspace, self._workspace.view(view.id) or view, payload)
            case "push":
                pushed(self._platform, view.user, checked_view(answer.get("view"), kind="modal"))
            case _:
                raise ApiError("invalid_response_action")
        return {}

    async def close(self, *, user: str, view_id: str, clear: bool = False) -> Delivery:
        """Close the modal on top, or with `clear` the whole stack."""
        view = self._top(user, view_id)
        clear = clear or bool(view.payload.get("clear_on_close"))
        gone = list(reversed(self._workspace.stacks[user])) if clear else [view]
        for one in gone:
            self._remove(one)
        told = [one for one in gone if one.payload.get("notify_on_close")]
        outcomes = [await self._tell_closed(one, is_cleared=clear) for one in told]
        last = outcomes[-1] if outcomes else Outcome(status=0, ms=0)
        return Delivery(status=last.status, ms=last.ms)

    async def _tell_closed(self, view: View, *, is_cleared: bool) -> Outcome:
        payload = payloads.closing(
            self._workspace,
            person=self._workspace.people[view.user],
            view=view_object(self._workspace, view),
            is_cleared=is_cleared,
        )
        return await self._dispatcher.send(Kind.INTERACTIVE, payload, summary="view_closed")

    def _remove(self, view: View) -> None:
        stack = self._workspace.stacks.get(view.user, [])
        self._workspace.stacks[view.user] = [one for one in stack if one.id != view.id]
        self._workspace.changes.bump()

    def _top(self, user: str, view_id: str) -> View:
        stack = self._workspace.stacks.get(user, [])
        if not stack or stack[-1].id != view_id:
            raise CannotError(f"{view_id} is not the modal that {user} has in front.")
        return stack[-1]


def _entered(blocks: list[Json], before: Json, values: Mapping[str, Any]) -> Json:
    entered = {block_id: dict(entries) for block_id, entries in before.items()}
    known = {
        (block["block_id"], element["action_id"]): element
        for block in blocks
        for element in elements_of(block)
    }
    for block_id, entries in values.items():
        for action_id, given in entries.items():
            if (block_id, action_id) not in known:
                raise CannotError(f"The modal has no field {block_id}/{action_id}.")
            try:
                value = read_value(known[block_id, action_id], given)
            except LookupError as error:
                raise CannotError(str(error)) from None
            entered.setdefault(block_id, {})[action_id] = value
    return entered


def _known_errors(view: View, errors: Any) -> Mapping[str, str]:
    """The app's complaints; Slack refuses one about a block that asks for nothing."""
    inputs = {b["block_id"] for b in view.payload["blocks"] if b["type"] == "input"}
    if not isinstance(errors, dict) or not errors or not set(errors) <= inputs:
        raise ApiError("invalid_errors")
    return {str(block_id): str(problem) for block_id, problem in errors.items()}
