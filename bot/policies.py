"""The policy in force, for a process that starts, and for whoever looks up people under it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from sqlalchemy.exc import ProgrammingError

from approvals.in_force import Policies
from approvals.policy_file import LoadedPolicy
from approvals.spaces import Known
from approvals.words import BadInputError
from bot.inventory import Inventory
from jobs.away import patiently
from jobs.operation import Kind, Operation
from jobs.registry import load_operations


class Groups(Mapping[str, str]):
    """Which Slack user group stands behind each name: the inventory's word, then the policy's."""

    def __init__(self, inventory: Mapping[str, str], policy: LoadedPolicy) -> None:
        self._inventory = inventory
        self._names = {**inventory, **policy.values.groups}

    def use(self, policy: LoadedPolicy) -> None:
        """Another policy is in force."""
        self._names = {**self._inventory, **policy.values.groups}

    def __getitem__(self, name: str) -> str:
        """The id of Slack's user group."""
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)


def known(inventory: Inventory | None, operations: Mapping[str, Operation] | None = None) -> Known:
    """What can be asked for, as the proofs of a policy look at it."""
    changes = operations if operations is not None else load_operations("commands")
    return Known(
        operations={
            name: tuple(map(str, (operation.risk, *sorted(operation.lesser_risks))))
            for name, operation in changes.items()
            if operation.kind is Kind.CHANGE
        },
        databases={
            name: (database.environment, str(database.tier))
            for name, database in (inventory.databases.items() if inventory else ())
        },
    )


async def started(policies: Policies) -> LoadedPolicy:
    """The policy in force from this start on; waits for the store if it is away.

    Raises:
        BadInputError: the file is no policy, or the store is not migrated.
        DistrustedPolicyError: somebody else has written which policy is in force.
    """
    try:
        found = await patiently(
            policies.start, patience=lambda: timedelta.max, what="read the policy in force"
        )
    except ProgrammingError as error:
        raise BadInputError(
            "The store is not of this version: it does not know which policy is in force.",
            next_step="Run: twokey store upgrade",
        ) from error
    return found.policy
