"""Commands that are imported when they are called: a terminal should not wait for a whole bot."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """A group whose commands stand in modules that are imported one by one, when needed.

    `groups` and `single` map a command's name to `module:attribute`, a `typer.Typer`: which
    is the command itself as a group, or has it among its own.
    """

    groups: ClassVar[Mapping[str, str]] = {}
    single: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, sorted."""
        del ctx
        return sorted({*self.groups, *self.single})

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """The command of this name, imported now; None: there is none."""
        place = self.groups.get(cmd_name) or self.single.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        found: typer.Typer = getattr(importlib.import_module(module), attribute)
        group = typer.main.get_group(found)
        if cmd_name in self.single:
            single = group.get_command(ctx, cmd_name)
            return single if isinstance(single, TyperCommand) else None
        group.name = cmd_name
        return group
