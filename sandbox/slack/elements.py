"""Block Kit's elements and composition objects, with Slack's limits. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sandbox.slack.rules import (
    Rule,
    Spec,
    anything,
    boolean,
    choice,
    items,
    number,
    plain,
    shape,
    string,
    text,
    whole,
)

ID_CHARS_MAX: Final = 255

_CONFIRM: Final = shape(
    Spec(
        fields={
            "title": plain(100),
            "text": text(300),
            "confirm": plain(30),
            "deny": plain(30),
            "style": choice("primary", "danger"),
        },
        required=("title", "text", "confirm", "deny"),
    )
)
_OPTION: Final = shape(
    Spec(
        fields={
            "text": text(75),
            "value": string(150),
            "description": text(75),
            "url": string(3000),
        },
        required=("text", "value"),
    )
)
_OPTION_GROUP: Final = shape(
    Spec(
        fields={"label": plain(75), "options": items(_OPTION, most=100)},
        required=("label", "options"),
    )
)

_COMMON: Final[Mapping[str, Rule]] = {
    "type": string(100),
    "action_id": string(ID_CHARS_MAX, least=1),
}
_FOCUS: Final[Mapping[str, Rule]] = {"focus_on_load": boolean}
_ASKING: Final[Mapping[str, Rule]] = {"confirm": _CONFIRM}
_SELECT: Final[Mapping[str, Rule]] = {
    **_COMMON,
    **_FOCUS,
    **_ASKING,
    "placeholder": plain(150),
}
_TYPED: Final[Mapping[str, Rule]] = {
    **_COMMON,
    **_FOCUS,
    "placeholder": plain(150),
    "dispatch_action_config": anything,
}
_MANY: Final[Mapping[str, Rule]] = {"max_selected_items": whole}
_STATIC: Final[Mapping[str, Rule]] = {
    "options": items(_OPTION, most=100),
    "option_groups": items(_OPTION_GROUP, most=100),
}


def _picker(initial: str, **more: Rule) -> Spec:
    return Spec(fields={**_SELECT, initial: anything, **more}, required=("type",))


_BUTTON: Final = Spec(
    fields={
        **_COMMON,
        **_ASKING,
        "text": plain(75),
        "value": string(2000),
        "url": string(3000),
        "style": choice("primary", "danger"),
        "accessibility_label": string(75),
    },
    required=("type", "text"),
)
_CHOICES: Final = Spec(
    fields={
        **_COMMON,
        **_FOCUS,
        **_ASKING,
        "options": items(_OPTION, most=10),
        "initial_options": items(_OPTION, most=10),
        "initial_option": _OPTION,
    },
    required=("type", "options"),
)

ELEMENTS: Final[Mapping[str, Spec]] = {
    "button": _BUTTON,
    "checkboxes": _CHOICES,
    "radio_buttons": _CHOICES,
    "overflow": Spec(
        fields={**_COMMON, **_ASKING, "options": items(_OPTION, most=5)},
        required=("type", "options"),
    ),
    "datepicker": _picker("initial_date"),
    "timepicker": _picker("initial_time", timezone=string(100)),
    "datetimepicker": _picker("initial_date_time"),
    "static_select": _picker("initial_option", **_STATIC),
    "multi_static_select": _picker("initial_options", **_STATIC, **_MANY),
    "external_select": _picker("initial_option", min_query_length=whole),
    "users_select": _picker("initial_user"),
    "multi_users_select": _picker("initial_users", **_MANY),
    "channels_select": _picker("initial_channel", response_url_enabled=boolean),
    "conversations_select": _picker(
        "initial_conversation",
        response_url_enabled=boolean,
        default_to_current_conversation=boolean,
        filter=anything,
    ),
    "plain_text_input": Spec(
        fields={
            **_TYPED,
            "initial_value": string(3000),
            "multiline": boolean,
            "min_length": whole,
            "max_length": whole,
        },
        required=("type",),
    ),
    "email_text_input": Spec(fields={**_TYPED, "initial_value": string(3000)}, required=("type",)),
    "url_text_input": Spec(fields={**_TYPED, "initial_value": string(3000)}, required=("type",)),
    "number_input": Spec(
        fields={
            **_TYPED,
            "is_decimal_allowed": boolean,
            "initial_value": number,
            "min_value": number,
            "max_value": number,
        },
        required=("type", "is_decimal_allowed"),
    ),
    "image": Spec(
        fields={
            "type": string(100),
            "image_url": string(3000),
            "slack_file": anything,
            "alt_text": string(2000, least=1),
        },
        required=("type", "alt_text"),
    ),
}

# What Slack sends in an action and keeps in a view's state, per type of element.
VALUE_FIELDS: Final[Mapping[str, str]] = {
    "plain_text_input": "value",
    "email_text_input": "value",
    "url_text_input": "value",
    "number_input": "value",
    "checkboxes": "selected_options",
    "radio_buttons": "selected_option",
    "overflow": "selected_option",
    "static_select": "selected_option",
    "external_select": "selected_option",
    "multi_static_select": "selected_options",
    "users_select": "selected_user",
    "multi_users_select": "selected_users",
    "channels_select": "selected_channel",
    "conversations_select": "selected_conversation",
    "datepicker": "selected_date",
    "timepicker": "selected_time",
    "datetimepicker": "selected_date_time",
}

INPUTS: Final = frozenset(VALUE_FIELDS) - {"overflow"}
ACTIONS: Final = frozenset(ELEMENTS) - {
    "image",
    "plain_text_input",
    "email_text_input",
    "url_text_input",
    "number_input",
}
ACCESSORIES: Final = (ACTIONS - {"datetimepicker"}) | {"image"}
