"""Settings and transactions that a file brings along: they are ours to keep. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from postgres.migrate.review.effects import Effect, Scene, finding, refused
from postgres.migrate.review.nodes import constant
from postgres.migrate.words import Level

# They change how fast or how talkative a session is, and nothing else.
_FREE: Final = frozenset({
    "maintenance_work_mem", "work_mem", "client_min_messages", "check_function_bodies",
    "max_parallel_maintenance_workers", "max_parallel_workers_per_gather", "temp_buffers",
    "xmloption", "jit", "extra_float_digits", "intervalstyle", "bytea_output",
    "default_table_access_method", "enable_seqscan", "cursor_tuple_fraction", "log_min_messages",
})  # fmt: skip
# Our limits, who we are, what names mean, how text is read, what is checked, what is kept.
_OURS: Final = frozenset({
    "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout",
    "transaction_timeout", "idle_session_timeout", "deadlock_timeout", "role",
    "session_authorization", "search_path", "session_replication_role", "row_security",
    "standard_conforming_strings", "backslash_quote", "escape_string_warning",
    "client_encoding", "transaction_isolation", "transaction_read_only",
    "transaction_deferrable", "default_transaction_isolation", "default_transaction_read_only",
    "default_transaction_deferrable", "synchronous_commit", "application_name",
    "allow_system_table_mods", "ignore_system_indexes", "zero_damaged_pages", "temp_tablespaces",
    "local_preload_libraries", "session_preload_libraries", "dynamic_library_path",
    "lo_compat_privileges", "event_triggers", "wal_compression", "fsync",
})  # fmt: skip
_HELP: Final = (
    "Take it out: the bot sets limits, role and search path itself, and keeps them. "
    "Write names with their schema."
)


def set_variable(node: Any, _scene: Scene) -> Effect:
    """SET, SET LOCAL, RESET."""
    match node.kind.name:
        case "VAR_RESET_ALL":
            return refused("session-setting", "RESET ALL undoes the bot's limits.", _HELP)
        case "VAR_SET_MULTI":
            # SET TRANSACTION, SET SESSION CHARACTERISTICS: their options are in `args`.
            return refused("session-setting", f"SET {node.name} is the bot's to say.", _HELP)
        case "VAR_RESET" | "VAR_SET_DEFAULT":
            return _changed(node.name, None)
        case _:
            values = [constant(each) for each in node.args or ()]
            return _changed(node.name, values[0] if len(values) == 1 else None)


def set_config(args: Sequence[str | int | bool | None]) -> Effect:
    """`set_config(name, value, local)`: the same by a function."""
    if not args or not isinstance(args[0], str):
        return refused("session-setting", "set_config() of a name that is computed.", _HELP)
    return _changed(args[0], args[1] if len(args) > 1 else None)


def transaction(node: Any, _scene: Scene) -> Effect:
    """BEGIN, COMMIT, ROLLBACK, SAVEPOINT, PREPARE TRANSACTION."""
    word = node.kind.name.removeprefix("TRANS_STMT_").replace("_", " ")
    return refused(
        "own-transaction",
        f"{word}: the file handles transactions itself.",
        "Take BEGIN and COMMIT out: the bot puts the file into one transaction, or none, as its "
        "statements need.",
    )


def discard(_node: Any, _scene: Scene) -> Effect:
    """DISCARD."""
    return refused("session-setting", "DISCARD undoes the bot's limits.", _HELP)


def _changed(name: str, value: object) -> Effect:
    plain = name.lower()
    if plain == "standard_conforming_strings" and str(value).lower() in {"on", "true", "1"}:
        return Effect()  # as it is anyway; every dump says so
    if plain == "client_encoding" and str(value).upper().replace("-", "") == "UTF8":
        return Effect()
    if plain in _FREE:
        return Effect()
    if plain in _OURS:
        return refused("session-setting", f"It sets {plain}, which is the bot's to keep.", _HELP)
    text = f"It sets {plain} for all that follows."
    return Effect(findings=(finding("changes-setting", Level.WARNING, text),))
