"""How long nobody could write, out of when somebody could."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gap import Gaps, longest


@pytest.mark.parametrize(
    ("acks", "since", "seconds"),
    [
        ([], 0.0, 0.0),
        ([1.0], 0.0, 0.0),
        ([1.0, 1.25, 3.0, 3.125], 1.0, 1.75),
        # It began before and had not ended: the whole of it counts.
        ([1.0, 3.0], 2.0, 2.0),
        # One that was over before is none of ours.
        ([1.0, 3.0, 3.5], 3.0, 0.5),
        ([1.0, 3.0], 3.0, 0.0),
    ],
)
def test_the_longest_time_without_a_row(acks: list[float], since: float, seconds: float) -> None:
    assert longest(acks, since=since) == seconds


def test_rows_of_several_servers_are_put_in_order_and_half_a_line_is_left_out(
    tmp_path: Path,
) -> None:
    file = tmp_path / "acks"
    file.write_text("2.5\n1.5\n3.2")
    assert Gaps(file).acks() == [1.5, 2.5]
