"""What a request still needs, in words."""

from __future__ import annotations

import pytest

from approvals.missing import Need, needs_in_words

A, B, C = Need(text="1 of a"), Need(text="1 of b"), Need(text="1 of c")
MET = Need(text="1 of m", is_met=True)


@pytest.mark.parametrize(
    ("needs", "ways", "ordered", "says"),
    [
        ([], [], False, ""),
        ([A], [], False, "1 of a"),
        ([MET], [], False, ""),
        ([A, B], [], False, "1 of a and 1 of b"),
        ([A, MET, B], [], False, "1 of a and 1 of b"),
        ([A, B], [], True, "1 of a, then 1 of b"),
        ([A, B], [[0], [1]], False, "1 of a or 1 of b"),
        ([MET, B], [[0], [1]], False, ""),
        ([A, B, C], [[0, 1], [2]], False, "1 of a and 1 of b, or 1 of c"),
        # What is met of one way leaves the rest of it, and no more.
        ([MET, B, C], [[0, 1], [2]], False, "1 of b or 1 of c"),
        # A way that asks for more than another one says nothing new.
        ([MET, B, C], [[0, 1], [1, 2]], False, "1 of b"),
        ([A, B, C], [[0, 1, 2], [1, 2]], False, "1 of b and 1 of c"),
        ([A, B], [[0, 1], [1, 0]], False, "1 of a and 1 of b"),
    ],
)
def test_what_is_missing_is_said_as_the_rule_means_it(
    needs: list[Need], ways: list[list[int]], *, ordered: bool, says: str
) -> None:
    assert needs_in_words(needs, ways, ordered=ordered) == says
