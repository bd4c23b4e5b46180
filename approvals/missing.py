"""What a request still needs, in words: any of several ways, all of one, in their order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one gate asks for, such as `2 of dba`, and whether it has it."""

    text: str
    is_met: bool = False


def needs_in_words(needs: Sequence[Need], ways: Sequence[Sequence[int]], *, ordered: bool) -> str:
    """Such as `1 of dba, then 1 of security`; empty when one of the ways is met whole.

    `ways` are the sets of gates (by position) of which one must be met; none: all gates.
    """
    all_ways = ways or [range(len(needs))]
    open_ways = [frozenset(place for place in way if not needs[place].is_met) for way in all_ways]
    if not needs or frozenset() in open_ways:
        return ""
    shortest = [way for way in open_ways if not any(other < way for other in open_ways)]
    distinct = list(dict.fromkeys(shortest))
    texts = [
        _way([needs[place].text for place in sorted(way)], ordered=ordered) for way in distinct
    ]
    lone = all(len(way) == 1 for way in distinct)
    return (" or " if lone else ", or ").join(texts)


def _way(texts: Sequence[str], *, ordered: bool) -> str:
    return (", then " if ordered else " and ").join(texts)
