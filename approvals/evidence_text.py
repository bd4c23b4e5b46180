"""What an evidence pack is made of, and what it says about itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from approvals.counting import count_text

MANIFEST: Final = "MANIFEST.json"
README: Final = "README.txt"
AUDIT: Final = "audit.jsonl"
RELATED: Final = "audit_related.jsonl"
ANCHORS: Final = "anchors_in_store.jsonl"
DRILLS: Final = "drills.jsonl"
# What the audit calls the entry of a drill's report; its detail has the report's `sha256`.
DRILL_ACTION: Final = "drill_reported"

_README: Final = """\
Evidence of database operations, {since} to {until} (not included)
{rule}

Population
  {statement}

Files (JSON Lines: one row of a table per line, in the order of its key; times are UTC)
  requests.jsonl            every request: who asked for what, why, the whole plan as it was
                            agreed to, the attributes it was judged by, its state, its seal
  gates.jsonl               who had to agree to each, as it was asked
  votes.jsonl               every vote: by whom, on which plan and policy, from which account,
                            the groups they belonged to then (`=` marks the seat, `@` other names
                            of the person), the signature and the id of the key that made it
  readings.jsonl            which page of which plan who had opened, and when first
  runs.jsonl                every run with its outcome
  run_steps.jsonl           its steps with their results
  policies.jsonl            every version of the policy that a request or vote refers to or that
                            was in force; the SHA-256 of `body` is its name
  policies_in_force.jsonl   which version was in force from when, and by which request
  delegations.jsonl         who could vote in whose seat, and when
  backups.jsonl             backups of the period, and those that were verified in it
  verifications.jsonl       restore tests: what was checked, and how long it took
  drills.jsonl              rehearsed disasters: what was lost, how long nobody could write, which
                            step took how long, what was missed; `sha256` is the hash of `report`
                            as JSON with sorted keys and without spaces
  audit.jsonl               the audit from the first to the last entry of the period, each chain
                            without a gap; the first line says so
  audit_related.jsonl       what the audit says of these requests before and after the period
  anchors_in_store.jsonl    anchors of the period as the store remembers them. The store is what
                            is being examined: for proof use those of the channel or the file
  MANIFEST.json             SHA-256 and number of lines of each of these files

How to verify, without Twokey's store or network
  twokey audit evidence --verify THIS.zip --hash HASH --anchors ANCHORS
    HASH     the SHA-256 of MANIFEST.json. It was printed when this pack was made, and it stands
             in the audit as the entry `evidence`.
    ANCHORS  the anchors' file of a host, or text copied from the anchors' channel.
  It finds any changed, missing or added file, any edit in the audit, a vote that the audit does
  not tell of, a vote of the audit that is missing here, a plan or policy that is not the one of
  its hash, a request that the audit tells of and that is missing here, and the report of a drill
  that is not the one of its hash or not the one that the audit tells of.
  Without ANCHORS nobody can tell whether the audit was cut or made anew as a whole. Signatures
  of votes can be checked only by who has the key (TWOKEY_VOTE_KEY): every worker did before it
  ran what was agreed to.

There are no tokens, passwords or keys in here. Plans, reasons and results are as people wrote
them and as databases answered.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """How many requests a pack holds, and how they were chosen."""

    requests: int
    asked: int
    since: str
    until: str

    @property
    def statement(self) -> str:
        """The same in a sentence."""
        others = self.requests - self.asked
        every = "The one request" if self.requests == 1 else f"All {self.requests:,} requests"
        return (
            f"{every}, no sample: {self.asked:,} that {'was' if self.asked == 1 else 'were'} asked "
            f"in the period, and {count_text(others, 'older or newer one')} that the audit tells "
            "of in it."
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest and the audit."""
        return {
            "requests": self.requests,
            "asked": self.asked,
            "since": self.since,
            "until": self.until,
            "statement": self.statement,
        }


def readme(population: Population) -> str:
    """The page that goes with a pack."""
    return _README.format(
        since=population.since,
        until=population.until,
        statement=population.statement,
        rule="=" * 80,
    )
