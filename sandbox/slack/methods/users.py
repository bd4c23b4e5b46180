"""users.* and usergroups.*: who somebody is, and who belongs to what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sandbox.slack.call import Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.methods.paging import page
from sandbox.slack.people import Person, group_object, user_object
from sandbox.slack.workspace import SLACKBOT, Json


def _object(call: Call, person: Person) -> Json:
    return user_object(
        person,
        now=call.platform.now(),
        with_email=call.granted("users:read.email"),
        with_locale=call.flag("include_locale"),
    )


def _info(call: Call) -> Json:
    person = call.workspace.people.get(call.text("user", missing="user_not_found"))
    if person is None:
        raise ApiError("user_not_found")
    return {"user": _object(call, person)}


def _list(call: Call) -> Json:
    people = list(call.workspace.people.values())
    found, cursor = page(call, people, default=1000, most=1000)
    return {
        "members": [_object(call, person) for person in found],
        "cache_ts": int(call.platform.now()),
        "response_metadata": {"next_cursor": cursor},
    }


def _by_email(call: Call) -> Json:
    email = call.text("email", missing="users_not_found").lower()
    for person in call.workspace.people.values():
        if person.email.lower() == email and not (person.deactivated or person.id == SLACKBOT):
            return {"user": _object(call, person)}
    raise ApiError("users_not_found")


def _groups(call: Call) -> Json:
    with_disabled = call.flag("include_disabled")
    groups = [
        group_object(
            group,
            team=call.workspace.team_id,
            with_users=call.flag("include_users"),
            with_count=call.flag("include_count"),
        )
        for group in call.workspace.groups.values()
        if with_disabled or not group.disabled
    ]
    return {"usergroups": groups}


def _group_members(call: Call) -> Json:
    group = call.workspace.groups.get(call.text("usergroup"))
    if group is None or (group.disabled and not call.flag("include_disabled")):
        raise ApiError("no_such_subteam")
    return {"users": list(group.members)}


METHODS: Final[Mapping[str, Method]] = {
    "users.info": Method(run=_info, scope="users:read", tier=4),
    "users.list": Method(run=_list, scope="users:read", tier=2),
    "users.lookupByEmail": Method(run=_by_email, scope="users:read.email", tier=3),
    "usergroups.list": Method(run=_groups, scope="usergroups:read", tier=2),
    "usergroups.users.list": Method(run=_group_members, scope="usergroups:read", tier=2),
}
