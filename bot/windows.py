"""Slack's modals: opened while a trigger lives, replaced, and what went wrong in a sentence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from slack_sdk.web.async_client import AsyncWebClient

from approvals.words import RefusedError, Why
from bot.blocks import Block
from bot.slack import SlackError, SlackRefusedError, call

OPEN_SECONDS_MAX: Final = 1.5  # a listener has 3 s in all
_TOO_LATE: Final = frozenset({"expired_trigger_id", "exchanged_trigger_id", "invalid_trigger_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Opens and replaces modals, and publishes home tabs."""

    client: AsyncWebClient

    async def open(self, trigger: str, view: Block, *, on_top: bool = False) -> None:
        """Open a modal; `on_top` of the one that was acted in.

        Raises:
            RefusedError: Slack did not open it.
        """
        method = self.client.views_push if on_top else self.client.views_open
        try:
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                await call(method(trigger_id=trigger, view=dict(view)))
        except (SlackError, TimeoutError) as error:
            raise _not_opened(error) from error

    async def replace(self, view_id: str, view_hash: str, view: Block) -> None:
        """Replace a modal, unless something newer has.

        Raises:
            SlackError: it was not replaced.
        """
        try:
            await call(self.client.views_update(view_id=view_id, hash=view_hash, view=dict(view)))
        except SlackRefusedError as error:
            if error.error != "hash_conflict":  # a newer click has won
                raise

    async def replace_named(self, name: str, view: Block) -> None:
        """Replace the modal that has this `external_id`.

        Raises:
            SlackError: there is none (`not_found`), or Slack did not do it.
        """
        await call(self.client.views_update(external_id=name, view=dict(view)))

    async def publish(self, user: str, view: Block) -> None:
        """Publish somebody's home tab.

        Raises:
            SlackError: it was not published.
        """
        await call(self.client.views_publish(user_id=user, view=dict(view)))


def _not_opened(error: SlackError | TimeoutError) -> RefusedError:
    late = isinstance(error, TimeoutError) or (
        isinstance(error, SlackRefusedError) and error.error in _TOO_LATE
    )
    return RefusedError(
        "Slack took too long to open the window."
        if late
        else f"Slack did not open the window ({error}).",
        next_step="Try it again.",
        why=Why.DIRECTORY,
    )
