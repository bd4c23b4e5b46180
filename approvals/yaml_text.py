"""YAML as everybody reads it, but for a key that stands twice: that is an error here. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


def read_yaml(text: str) -> object:
    """What a YAML (or JSON) text says.

    Raises:
        yaml.YAMLError: it cannot be parsed, or says a key twice in one mapping.
        ValueError, TypeError, RecursionError: it says what no value can be, such as the
            30th of February, or a list for a key.
    """
    # A SafeLoader with one method made stricter.
    return yaml.load(text, Loader=_Loader)  # noqa: S506


class _Loader(yaml.SafeLoader):
    """Refuses what is otherwise the last one's silent victory."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002
    ) -> dict[Hashable, Any]:
        """The mapping, unless it says a key twice."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused by the original
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {str(key)!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
