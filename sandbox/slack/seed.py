"""The demo workspace: its ids are fixed, tests and docs use them."""

from __future__ import annotations

from typing import Any, Final

from sandbox.slack.people import Group, Person
from sandbox.slack.workspace import App, Channel, Workspace

TEAM: Final = ("T0DEMO", "Acme")
OTHER_TEAM: Final = "T0OTHER"
APP: Final = App(id="A0TWOKEY", name="Twokey", user="U0TWOKEY", bot="B0TWOKEY")


def demo_workspace() -> Workspace:
    """Acme: engineers, approvers, and one of every kind of account that may not decide."""
    people = _people()
    everybody = frozenset(person.id for person in people)
    return Workspace(
        team=TEAM, app=APP, people=people, groups=_groups(), channels=_channels(everybody)
    )


def _person(user: str, name: str, real_name: str, title: str, **more: Any) -> Person:
    fields: dict[str, Any] = {"email": f"{name}@acme.example", "team": TEAM[0], **more}
    return Person(id=user, name=name, real_name=real_name, title=title, **fields)


def _people() -> list[Person]:
    return [
        _person("U0ANA", "ana", "Ana Arnold", "Engineer", color="4b7bec"),
        _person("U0BEN", "ben", "Ben Berger", "DBA", color="20bf6b", tz="Europe/London"),
        _person(
            "U0CLEO", "cleo", "Cleo Caduff", "DBA and security", color="a55eea", tz="Asia/Tokyo"
        ),
        _person("U0DORA", "dora", "Dora Dietrich", "Manager, security", color="eb3b5a", admin=True),
        _person("U0OLE", "ole", "Ole Olsen", "On call", color="fa8231", tz="America/New_York"),
        _person("U0GUS", "gus", "Gus Gasser", "Contractor (guest)", color="778ca3", guest=True),
        _person(
            "U0EVE",
            "eve",
            "Eve Evans",
            "Partner of another company",
            color="2d98da",
            team=OTHER_TEAM,
            external=True,
        ),
        _person("U0DEE", "dee", "Dee Dubois", "Left last week", color="4b6584", deactivated=True),
        _person("U0UNA", "una", "Una Urban", "New, unconfirmed", color="0fb9b1", unconfirmed=True),
        _person(
            "U0ANA2",
            "ana.second",
            "Ana Arnold (second account)",
            "Engineer",
            color="3867d6",
            email="ana@acme.example",
        ),
        _person("U0HAL", "hal", "Hal", "Another bot", color="8854d0", bot=True, bot_id="B0HAL"),
        _person(
            APP.user, "twokey", "Twokey", "App", color="1f3a4d", bot=True, bot_id=APP.bot, tz="UTC"
        ),
        Person(
            id="USLACKBOT", name="slackbot", real_name="Slackbot", email="", team=TEAM[0], tz="UTC"
        ),
    ]


def _groups() -> list[Group]:
    # The unfit ones are members on purpose: membership alone must never be enough.
    dba = ("U0BEN", "U0CLEO", "U0GUS", "U0EVE", "U0DEE", "U0UNA", "U0HAL")
    return [
        Group(id="S0DBA", handle="dba", name="DBAs", members=dba),
        Group(id="S0ONCALL", handle="oncall", name="On call", members=("U0OLE",)),
        Group(id="S0SECURITY", handle="security", name="Security", members=("U0CLEO", "U0DORA")),
        Group(id="S0OWNERS", handle="owners", name="Owners", members=("U0DORA",)),
    ]


def _channels(everybody: frozenset[str]) -> list[Channel]:
    # Even Eve and Dee are in the bot's channels: a click that they make is delivered, and
    # to refuse it is the app's business.
    staff = everybody - {APP.user, "USLACKBOT", "U0EVE", "U0DEE"}
    working = everybody - {"USLACKBOT"}
    return [
        Channel(id="C0GENERAL", name="general", members=staff, topic="Company-wide news"),
        Channel(id="C0DBOPS", name="db-ops", members=working, topic="Changes to databases"),
        Channel(id="C0ORDERS", name="orders", members=working, topic="The orders service"),
        Channel(
            id="C0SECRET",
            name="secret",
            members=frozenset({"U0ANA", "U0BEN", "U0DORA"}),
            private=True,
        ),
        Channel(
            id="C0SHARED",
            name="partners",
            members=frozenset({"U0ANA", "U0BEN", "U0EVE", APP.user}),
            ext_shared=True,
            topic="Shared with another company",
        ),
        Channel(id="C0OLD", name="old", members=frozenset({"U0ANA", APP.user}), archived=True),
    ]
