"""Check an evidence pack without a store, settings or network; needs nothing but Python."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from approvals.anchors import Anchors
from approvals.chain import Entry, entry_hash, stamp
from approvals.counting import count_text
from approvals.evidence_drills import Drills
from approvals.evidence_text import ANCHORS, AUDIT, DRILLS, MANIFEST, README, RELATED
from approvals.exports import BadLine, read_export, text_lines
from approvals.offline import Check, Report, place
from approvals.plans import canonical, sha256
from approvals.vote_digest import vote_digest
from approvals.words import BadInputError

MANIFEST_BYTES_MAX: Final = 1_000_000
FINDINGS_MAX: Final = 1000
_CHUNK_BYTES: Final = 1 << 20
_VOTES: Final = {"vote": "", "withdraw_vote": "withdrawn"}
# What a pack must hold, whatever its manifest says.
_NEEDED: Final = frozenset({README, AUDIT, RELATED, ANCHORS, "requests.jsonl", "votes.jsonl"})

# A vote: request, person, moment, verdict, and the hash of all of it. What the audit and the
# votes must agree on.
_Key = tuple[int, str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """What a check of a pack has found, in sentences."""

    manifest: str
    files: int
    requests: int
    votes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The report for scripts."""
        return {
            "ok": self.ok,
            "manifest": self.manifest,
            "files": self.files,
            "requests": self.requests,
            "votes": self.votes,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def sentences(self) -> Iterable[str]:
        """The report for people."""
        yield from self.problems
        yield from (f"Note: {note}" for note in self.notes)
        files, requests = count_text(self.files, "file"), count_text(self.requests, "request")
        yield f"Manifest {self.manifest}: {files}, {requests}."
        wrong = len(self.problems)
        found = count_text(wrong, "finding") if wrong else "all in order"
        yield f"{count_text(self.votes, 'vote')}: {found}."


def check_pack(path: Path, *, anchors: Anchors | None, manifest: str | None) -> PackReport:
    """What is wrong with a pack. `manifest`: the hash that its manifest should have.

    Raises:
        BadInputError: it is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Checking(archive=archive, anchors=anchors, expected=manifest).all()
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInputError(
            f"{path} cannot be read as an evidence pack: {error}.",
            next_step="Name a file that `twokey audit evidence --out` wrote.",
        ) from None


@dataclass(slots=True, kw_only=True)
class _Checking:
    archive: zipfile.ZipFile
    anchors: Anchors | None
    expected: str | None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    requests: set[int] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    votes: dict[_Key, int] = field(default_factory=dict)
    audited: dict[_Key, str] = field(default_factory=dict)
    told_of: set[int] = field(default_factory=set)
    drills: Drills = field(default_factory=Drills)

    def all(self) -> PackReport:
        """Everything, file by file."""
        names = [info.filename for info in self.archive.infolist()]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._problem(f"{name} stands twice in the archive.")
        manifest, digest = self._manifest()
        files: Mapping[str, Any] = manifest.get("files", {})
        self._names(set(names), set(files))
        for name in sorted(set(files) & set(names)):
            self._file(name, files[name])
        if not self.problems:
            self._contents(manifest)
        return PackReport(
            manifest=digest,
            files=len(names),
            requests=len(self.requests),
            votes=sum(self.votes.values()),
            problems=tuple(self.problems),
            notes=tuple(self.notes),
        )

    def _manifest(self) -> tuple[Mapping[str, Any], str]:
        try:
            with self.archive.open(MANIFEST) as file:
                data = file.read(MANIFEST_BYTES_MAX)
            found = json.loads(data)
            files = found["files"]
            is_good = all({"rows", "sha256"} == set(said) for said in files.values())
        except (KeyError, ValueError, TypeError, AttributeError, zipfile.BadZipFile):
            self._problem(f"{MANIFEST} is missing or cannot be read.")
            return {}, ""
        digest = hashlib.sha256(data).hexdigest()
        if not is_good or data != f"{canonical(found)}\n".encode():
            self._problem(f"{MANIFEST} is not as it was written.")
        if self.expected is None:
            self.notes.append(
                "Whether this is the pack that was made shows only by its manifest's hash: give "
                "--hash, as it was printed then and as it stands in the audit."
            )
        elif self.expected.lower() != digest:
            self._problem(f"{MANIFEST} is another one: its hash is {digest}.")
        return found, digest

    def _names(self, there: set[str], listed: set[str]) -> None:
        for name in sorted(there - listed - {MANIFEST}):
            self._problem(f"{name} was added: the manifest does not name it.")
        for name in sorted((listed | _NEEDED) - there):
            self._problem(f"{name} is missing.")

    def _file(self, name: str, said: Mapping[str, Any]) -> None:
        digest, rows = hashlib.sha256(), 0
        try:
            with self.archive.open(name) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    rows += chunk.count(b"\n")
        except zipfile.BadZipFile as error:
            self._problem(f"{name} was changed: {error}.")
            return
        if digest.hexdigest() != said["sha256"]:
            self._problem(f"{name} was changed: its hash is not that of the manifest.")
        elif rows != said["rows"]:
            self._problem(f"{name} has {rows} lines, and the manifest says {said['rows']}.")

    def _contents(self, manifest: Mapping[str, Any]) -> None:
        """What the files say about one another; only of files that are unchanged."""
        try:
            self._read_rows()
            if DRILLS in manifest["files"]:  # those of before had none
                for row in self._rows(DRILLS):
                    self.drills.read(row)
            self._read_audit()
            self._read_related()
        except (KeyError, ValueError, TypeError) as error:
            self._problem(f"A file does not hold what it should: {error!r}.")
            return
        self._compare_votes()
        for problem in self.drills.problems(self.requests):
            self._problem(problem)
        for request_id in sorted(self.told_of - self.requests):
            self._problem(f"Request {request_id} is missing: the audit tells of it in the period.")
        said = manifest.get("population", {}).get("requests")
        if said != len(self.requests):
            self._problem(f"The manifest says {said} requests, and there are {len(self.requests)}.")

    def _read_rows(self) -> None:
        for row in self._rows("policies.jsonl"):
            self.policies.add(row["hash"])
            if sha256(row["body"]) != row["hash"]:
                self._problem(f"The policy {row['hash'][:12]} is not the one of its hash.")
        for row in self._rows("requests.jsonl"):
            self.requests.add(row["id"])
            if sha256(row["plan"]) != row["plan_hash"]:
                self._problem(f"The plan of request {row['id']} is not the one of its hash.")
            self._knows(row["policy_hash"], f"request {row['id']}")
        for row in self._rows("votes.jsonl"):
            key = (
                row["request_id"], row["person"], _moment(row["at"]), row["verdict"],
                vote_digest(row),
            )  # fmt: skip
            self.votes[key] = self.votes.get(key, 0) + 1
            self._knows(row["policy_hash"], f"a vote on request {row['request_id']}")
        for row in self._rows("runs.jsonl"):
            if row["request_id"] not in self.requests:
                self._problem(f"Run {row['id']} is of a request that is not here.")

    def _knows(self, policy: str, what: str) -> None:
        if policy not in self.policies:
            self._problem(f"The policy {policy[:12]} of {what} is missing.")

    def _read_audit(self) -> None:
        with self.archive.open(AUDIT) as file:
            export = read_export(_text(file, AUDIT))
            check = Check(scope=export.scope, anchors=self.anchors)
            for item in export.items:
                check.take(item)
                if isinstance(item, Entry):
                    self._heard(item)
                    if item.request_id is not None:
                        self.told_of.add(item.request_id)
        self._tell(check.end(), is_ranged=export.scope.linked)

    def _tell(self, report: Report, *, is_ranged: bool) -> None:
        if not is_ranged:
            self._problem(f"{AUDIT} holds chosen entries only, where it should hold all.")
        self.notes += report.notes
        for problem in report.problems:
            self._problem(problem)
        for found in report.findings:
            self._problem(f"{AUDIT}: {place(found)}{found.problem}.")

    def _read_related(self) -> None:
        with self.archive.open(RELATED) as file:
            for item in read_export(_text(file, RELATED)).items:
                if isinstance(item, BadLine):
                    self._problem(f"{RELATED}: {item.problem}")
                elif item.hash != entry_hash(item):
                    self._problem(f"{RELATED}: {item.chain}, entry {item.seq} was edited.")
                else:
                    self._heard(item)

    def _heard(self, entry: Entry) -> None:
        """What the audit says of votes that counted, and of drills."""
        self.drills.hear(entry)
        detail = entry.detail
        if entry.action not in _VOTES or entry.request_id is None or detail.get("result") != "ok":
            return
        verdict = _VOTES[entry.action] or str(detail.get("verdict"))
        key = (entry.request_id, entry.actor, stamp(entry.at), verdict, str(detail.get("vote")))
        self.audited[key] = f"{entry.chain}, entry {entry.seq}"

    def _compare_votes(self) -> None:
        for key, count in sorted(self.votes.items()):
            request_id, person, at, verdict, _ = key
            what = f"The vote of {person} on request {request_id} ({verdict}, {at})"
            if key not in self.audited:
                self._problem(f"{what} is not in the audit as it stands here.")
            elif count > 1:
                self._problem(f"{what} stands {count} times.")
        for key, where in sorted(self.audited.items()):
            if key[0] in self.requests and key not in self.votes:
                self._problem(
                    f"The audit ({where}) tells of a vote of {key[1]} on request {key[0]} that is "
                    "missing here, or stands here differently."
                )

    def _rows(self, name: str) -> Iterator[Mapping[str, Any]]:
        with self.archive.open(name) as file:
            for line in _text(file, name):
                yield json.loads(line)

    def _problem(self, text: str) -> None:
        if len(self.problems) < FINDINGS_MAX:
            self.problems.append(text)


def _text(file: Any, name: str) -> Iterator[str]:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline="\n")
    return text_lines(text, name=name)


def _moment(text: str) -> str:
    return stamp(datetime.fromisoformat(text))
