"""The people of a scenario, and what its words mean as events. Pure.

Both worlds in which scenarios are played use this, so that they differ in nothing but in
where requests are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from approvals.events import Manner
from approvals.scenario_file import EventModel, PersonModel
from approvals.words import Flag, Person, PersonId


@dataclass(slots=True, kw_only=True)
class Town:
    """A directory that a scenario changes."""

    people: dict[str, Person] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    up: bool = True

    @staticmethod
    def of(people: Mapping[str, PersonModel]) -> Town:
        """The directory at a scenario's start."""
        town = Town()
        for name, model in people.items():
            town._set(name, model.model_dump())
        return town

    def find(self, name: str | None) -> Person | None:
        """Who this is by name or alias, without case; None for nobody, or more than one."""
        if name is None:
            return None
        key = _key(name)
        if key in self.people:
            return self.people[key]
        known = [person for person in self.people.values() if key in person.aliases]
        return known[0] if len(known) == 1 else None

    def all(self) -> Mapping[PersonId, Person]:
        """Everybody as they are now."""
        return {person.id: person for person in self.people.values()}

    def name(self, person: PersonId) -> str:
        """How the scenario writes this person."""
        return self.names.get(person, person)

    def beneficiary(self, event: EventModel) -> Person | None:
        """For whom somebody asks; somebody unknown is nobody for whom one may."""
        if event.beneficiary is None:
            return None
        key = PersonId(_key(event.beneficiary))
        nobody = Person(id=key, name=key, flags=frozenset({Flag.EXTERNAL}))
        return self.find(event.beneficiary) or nobody

    def change(self, event: EventModel) -> None:
        """Change people: what is not said of somebody stays; null makes them leave."""
        for name, changes in event.changed_people.items():
            self._set(name, changes)

    def manner(self, event: EventModel) -> Manner:
        """How a scenario's decision reached us."""
        return Manner(
            signed=event.signature == "valid",
            reading=event.method.upper() != "POST",
            as_person=self._named(event.as_user),
            sets_policy=event.set_policy is not None,
            directory_up=self.up,
        )

    def _named(self, name: str | None) -> str | None:
        if name is None:
            return None
        person = self.find(name)
        return person.id if person else name

    def _set(self, name: str, changes: Mapping[str, Any] | None) -> None:
        key = _key(name)
        before = self.find(name) or Person(id=PersonId(key), name=name)
        self.names.setdefault(before.id, name)
        if changes is None:
            self.people[before.id] = replace(before, flags=frozenset({Flag.DEACTIVATED}))
            return
        said = PersonModel.model_validate(changes)
        given = said.model_fields_set
        known = before.id in self.people
        groups = frozenset(said.groups) if "groups" in given or not known else before.groups
        flags = frozenset(said.flags) if "flags" in given or not known else before.flags
        aliases = frozenset(_key(alias) for alias in said.aliases)
        self.people[before.id] = replace(
            before,
            groups=groups,
            flags=flags,
            aliases=aliases if "aliases" in given or not known else before.aliases,
            name=said.display_name or before.name,
        )


def _key(name: str) -> str:
    return name.strip().casefold()
