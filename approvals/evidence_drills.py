"""What an evidence pack says of rehearsed disasters, held against the audit. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from approvals.chain import Entry
from approvals.evidence_text import DRILL_ACTION
from approvals.plans import canonical, sha256


@dataclass(slots=True)
class Drills:
    """Collects the rows of a pack and what its audit tells of them, in any order."""

    said: dict[int, str] = field(default_factory=dict)  # a request's report hash; '' without one
    wrong: list[str] = field(default_factory=list)
    heard: dict[int, tuple[str, str]] = field(default_factory=dict)  # its hash, and where

    def read(self, row: Mapping[str, Any]) -> None:
        """A row of the file.

        Raises:
            KeyError: it is no such row.
        """
        request_id, report, digest = row["request_id"], row["report"], row["sha256"]
        if request_id in self.said:
            self.wrong.append(f"The drill of request {request_id} stands twice.")
        elif digest != (None if report is None else sha256(canonical(report))):
            self.wrong.append(
                f"The report of the drill of request {request_id} is not the one of its hash."
            )
        self.said[request_id] = digest or ""

    def hear(self, entry: Entry) -> None:
        """An entry of the audit; all but those of drills are passed over."""
        if entry.action == DRILL_ACTION and entry.request_id is not None:
            where = f"{entry.chain}, entry {entry.seq}"
            self.heard[entry.request_id] = (str(entry.detail.get("sha256")), where)

    def problems(self, requests: Collection[int]) -> Iterator[str]:
        """What does not fit. `requests`: the numbers of those in the pack."""
        yield from self.wrong
        for request_id, digest in sorted(self.said.items()):
            if request_id not in requests:
                yield f"The drill of request {request_id} is of a request that is not here."
            if digest and request_id not in self.heard:
                yield (
                    f"The report of the drill of request {request_id} is not in the audit as it"
                    " stands here."
                )
        for request_id, (digest, where) in sorted(self.heard.items()):
            if request_id in requests and self.said.get(request_id) != digest:
                yield (
                    f"The audit ({where}) tells of a drill of request {request_id} whose report is"
                    " missing here, or stands here differently."
                )
