"""Two folders change places: from wherever a crash left them, and never with a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.errors import PostgresError
from postgres.restore.exchange import (
    Exchange,
    Stage,
    carry_out,
    inode_of,
    look,
    read_note,
    stage_of,
    take_back,
    write_note,
)

OLD, NEW, STRANGER = 1, 2, 3
PLACES = ("place", "coming", "leaving")
PURE = Exchange(
    place=Path("place"),
    coming=Path("coming"),
    leaving=Path("leaving"),
    coming_inode=NEW,
    leaving_inode=OLD,
)


class CrashError(Exception):
    """The process is gone."""


@dataclass(slots=True)
class Folders:
    """Three names and what stands there, with a process that may die before any rename."""

    stands: dict[str, int | None]
    renames: int = 0
    dies_before: list[int] = field(default_factory=list)

    def stage(self) -> Stage:
        return stage_of(PURE, **self.stands)

    def rename(self, source: str, target: str) -> None:
        self.renames += 1
        if self.renames in self.dies_before:
            raise CrashError
        assert self.stands[target] is None
        self.stands[target], self.stands[source] = self.stands[source], None

    def go_on(self) -> None:
        """What `carry_out` does, by the same decisions."""
        if self.stage() is Stage.BEFORE:
            self.rename("place", "leaving")
        if self.stage() is Stage.BETWEEN:
            self.rename("coming", "place")


@given(dies_before=st.lists(st.integers(1, 5), max_size=4, unique=True))
def test_whenever_a_worker_dies_the_next_one_brings_the_exchange_to_its_end(
    dies_before: list[int],
) -> None:
    folders = Folders({"place": OLD, "coming": NEW, "leaving": None}, dies_before=dies_before)
    for _ in range(len(dies_before) + 1):
        try:
            folders.go_on()
        except CrashError:
            assert folders.stage() is not Stage.UNCLEAR
    assert folders.stage() is Stage.AFTER
    assert folders.stands == {"place": NEW, "coming": None, "leaving": OLD}


@given(
    stands=st.fixed_dictionaries(dict.fromkeys(PLACES, st.sampled_from([None, OLD, NEW, STRANGER])))
)
def test_each_other_state_of_the_folders_is_unclear(stands: dict[str, int | None]) -> None:
    known = {
        (OLD, NEW, None): Stage.BEFORE,
        (None, NEW, OLD): Stage.BETWEEN,
        (NEW, None, OLD): Stage.AFTER,
    }
    wanted = known.get((stands["place"], stands["coming"], stands["leaving"]), Stage.UNCLEAR)
    assert stage_of(PURE, **stands) is wanted


@pytest.fixture
def made(tmp_path: Path) -> Exchange:
    place, coming = tmp_path / "orders", tmp_path / "orders.twokey-new-1"
    for folder in (place, coming):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    return Exchange(
        place=place,
        coming=coming,
        leaving=tmp_path / "orders.twokey-old-1",
        coming_inode=inode_of(coming) or 0,
        leaving_inode=inode_of(place) or 0,
    )


def test_an_exchange_and_its_reverse_leave_everything_as_it_was(made: Exchange) -> None:
    done: list[str] = []
    carry_out(made, done.append)
    assert done == ["left before", "left between"]
    assert (made.place / "name").read_text() == "orders.twokey-new-1"
    carry_out(made)
    assert look(made) is Stage.AFTER
    carry_out(made.reverse())
    assert look(made) is Stage.BEFORE


def test_between_the_two_renames_it_can_be_taken_back(made: Exchange) -> None:
    take_back(made)
    assert look(made) is Stage.BEFORE
    made.place.rename(made.leaving)
    assert look(made) is Stage.BETWEEN
    take_back(made)
    assert look(made) is Stage.BEFORE
    carry_out(made)
    take_back(made)
    assert look(made) is Stage.AFTER


@pytest.mark.parametrize("name", ["place", "coming", "leaving"])
def test_nothing_is_touched_when_a_stranger_stands_there(made: Exchange, name: str) -> None:
    path: Path = getattr(made, name)
    if path.exists():
        path.rename(path.with_name("elsewhere"))
    path.mkdir()
    with pytest.raises(PostgresError, match="a folder that is neither") as refused:
        carry_out(made)
    assert "Nothing was touched" in refused.value.next_step
    assert not list(_everything(path))


def test_a_note_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "orders.twokey-1.json"
    assert read_note(path) is None
    write_note(path, PURE)
    assert Exchange.model_validate_json(read_note(path) or b"") == PURE
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def _everything(folder: Path) -> Iterator[Path]:
    return folder.iterdir()
