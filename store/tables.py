"""The tables of our own database. `store/migrations` creates them; this file names them.

Triggers, grants and functions stand in the migrations only: `approvals.audit` and
`approvals.store` say what they promise.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

metadata = sa.MetaData()


def _at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, TIMESTAMP(timezone=True), nullable=nullable)


policies = sa.Table(
    "policies",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),  # canonical JSON; its SHA-256 is `hash`
    _at("at"),
)

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # grows with each change of the row
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("database", sa.Text, nullable=False),  # the target; '' for none
    sa.Column("asked_by", sa.Text, nullable=False),  # PersonId
    sa.Column("asked_by_slack", sa.Text, nullable=False),  # TEAM/USER or ''
    sa.Column("authors", ARRAY(sa.Text), nullable=False),  # everybody who shaped the plan
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("params", JSONB, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),  # canonical JSON; its SHA-256 is `plan_hash`
    sa.Column("plan_hash", sa.Text, nullable=False),
    sa.Column("policy_hash", sa.Text, nullable=False),
    sa.Column("attributes", JSONB, nullable=False),  # what we derived; rules matched on these
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),  # which gate is open when gates are ordered
    _at("asked_at"),
    _at("expires_at"),
    _at("approved_at", nullable=True),
    _at("approval_expires_at", nullable=True),
    _at("not_before", nullable=True),
    _at("ended_at", nullable=True),
    sa.Column("detail", JSONB, nullable=False),  # break-glass, review, refusal: who, when, why
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("told_version", sa.Integer, nullable=False, server_default="0"),
    _at("tell_at", nullable=True),
    sa.Index("requests_open", "state", "expires_at"),
    sa.Index("requests_of_database", "database", sa.text("id DESC")),
    sa.Index("requests_asked_by", "asked_by", sa.text("id DESC")),
    sa.Index("requests_untold", "id", postgresql_where=sa.text("told_version <> version")),
    sa.Index("requests_tell_at", "tell_at", postgresql_where=sa.text("tell_at IS NOT NULL")),
)

gates = sa.Table(
    "gates",
    metadata,
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("approve", sa.Integer, sa.CheckConstraint("approve >= 1"), nullable=False),
    sa.Column("deny", sa.Integer, sa.CheckConstraint("deny >= 0"), nullable=False),
)

votes = sa.Table(
    "votes",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), nullable=False),
    sa.Column("plan_hash", sa.Text, nullable=False),
    sa.Column("policy_hash", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("person", sa.Text, nullable=False),  # PersonId
    sa.Column("slack", sa.Text, nullable=False),  # TEAM/USER or ''
    sa.Column("groups", ARRAY(sa.Text), nullable=False),  # membership when the vote was cast
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("door", sa.Text, nullable=False),
    _at("at"),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sa.Index("votes_of_request", "request_id"),
)

# What was answered to a click or a command that Slack may deliver again.
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _at("at"),
    sa.Column("request_id", sa.BigInteger),
    sa.Column("answer", JSONB, nullable=False),
    sa.Index("deliveries_at", "at"),
)

audit_heads = sa.Table(
    "audit_heads",
    metadata,
    sa.Column("chain", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("seq", sa.BigInteger, nullable=False),  # 1, 2, 3 … within its chain
    sa.Column("chain", sa.Text, nullable=False),  # a database's name, or '' for the rest
    _at("at"),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("request_id", sa.BigInteger),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("detail", JSONB, nullable=False),
    sa.Column("prev_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("chain", "seq"),
    sa.Index("audit_of_request", "request_id"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), nullable=False),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    # queued, running, done, failed, cancelled, refused, needs_attention
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),  # grows with each claim: fences a thawed worker
    sa.Column("worker", sa.Text, nullable=False),
    _at("queued_at"),
    _at("started_at", nullable=True),
    _at("heartbeat_at", nullable=True),
    _at("ended_at", nullable=True),
    sa.Column("cancel_by", sa.Text, nullable=False, server_default=""),
    sa.Column("paused_by", sa.Text, nullable=False, server_default=""),
    sa.Column("paused_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("progress", JSONB, nullable=False),
    sa.Column("outcome", JSONB, nullable=False),  # answer, or problem and next_step
    # It neither waits for other runs of its database nor makes them wait.
    sa.Column("beside", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("request_id"),  # a grant runs once
    sa.Index("runs_state", "state", "heartbeat_at"),
    sa.Index(
        "runs_of_database", "database", sa.text("ended_at DESC"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    ),
)  # fmt: skip

run_steps = sa.Table(
    "run_steps",
    metadata,
    sa.Column("run_id", sa.BigInteger, sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # started, done, failed
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    _at("started_at"),
    _at("ended_at", nullable=True),
    sa.Column("checkpoint", JSONB),
    sa.Column("result", JSONB),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
)

run_log = sa.Table(
    "run_log",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("run_id", sa.BigInteger, sa.ForeignKey("runs.id"), nullable=False),
    _at("at"),
    sa.Column("line", sa.Text, nullable=False),
    sa.Index("run_log_of_run", "run_id", "id"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),  # card, note, progress, result
    sa.Column("request_id", sa.BigInteger),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("payload", JSONB, nullable=False),
    _at("created_at"),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),  # waiting, sent, dead
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    _at("due_at"),
    _at("sent_at", nullable=True),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.Index("outbox_waiting", "channel", "id", postgresql_where=sa.text("state = 'waiting'")),
)

# Where things stand in Slack: the card of a request, the progress message of its run.
posts = sa.Table(
    "posts",
    metadata,
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("ts", sa.Text, nullable=False),
    sa.Index("posts_place", "channel", "ts"),
)

backups = sa.Table(
    "backups",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # such as orders-20261122T020000Z-17
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # full, incremental, logical
    sa.Column("engine", sa.Text, nullable=False),  # native, pgbackrest
    sa.Column("state", sa.Text, nullable=False),  # complete, damaged, removing, removed, lost
    sa.Column("folder", sa.Text, nullable=False),
    _at("started_at"),
    _at("ended_at"),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("data_bytes", sa.BigInteger, nullable=False),
    sa.Column("start_lsn", sa.Text, nullable=False),
    sa.Column("end_lsn", sa.Text, nullable=False),
    sa.Column("timeline", sa.Integer, nullable=False),
    sa.Column("system_identifier", sa.Text, nullable=False),
    sa.Column("major", sa.Integer, nullable=False),
    sa.Column("manifest_sha256", sa.Text, nullable=False),
    sa.Column("row_counts", JSONB, nullable=False),
    sa.Column("request_id", sa.BigInteger),
    sa.Column("tiers", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("base", sa.Text, sa.ForeignKey("backups.id")),  # what an incremental builds on
    sa.Column("label", sa.Text, nullable=False, server_default=""),  # the engine's own name
    sa.Column("encryption", sa.Text, nullable=False, server_default="none"),  # none, age
    sa.Column("hold", JSONB),  # {by, at, reason}, or null
    _at("removed_at", nullable=True),
    sa.Column("detail", JSONB, nullable=False, server_default="{}"),
    sa.Index("backups_of_database", "database", "started_at"),
    sa.Index("backups_of_base", "base", postgresql_where=sa.text("base IS NOT NULL")),
)

verifications = sa.Table(
    "verifications",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("backup_id", sa.Text, sa.ForeignKey("backups.id"), nullable=False),
    _at("at"),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("restore_seconds", sa.Float, nullable=False),
    sa.Column("total_seconds", sa.Float, nullable=False),
    sa.Column("checks", JSONB, nullable=False),
    sa.Column("request_id", sa.BigInteger),
    sa.Column("target", sa.Text, nullable=False, server_default=""),  # '': the backup's end
    sa.Column("data_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("wal_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("verifications_of_backup", "backup_id", "at"),
)

# The newest row names the policy in force, if its signature is ours.
policies_in_force = sa.Table(
    "policies_in_force",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("policy_hash", sa.Text, sa.ForeignKey("policies.hash"), nullable=False),
    _at("at"),
    sa.Column("by", sa.Text, nullable=False),  # PersonId, or "operator" for the first one
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
)

# `stand_in` may vote in the seat of `absent`; a row with `revokes` ends an earlier one.
delegations = sa.Table(
    "delegations",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("absent", sa.Text, nullable=False),  # PersonId
    sa.Column("absent_slack", sa.Text, nullable=False),  # TEAM/USER
    sa.Column("stand_in", sa.Text, nullable=False),
    sa.Column("stand_in_slack", sa.Text, nullable=False),
    _at("starts_at"),
    _at("ends_at"),
    _at("at"),
    sa.Column("revokes", sa.BigInteger, sa.ForeignKey("delegations.id")),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sa.Index("delegations_end", "ends_at"),
)

# Who has seen which page (from 0) of which plan, and when first.
readings = sa.Table(
    "readings",
    metadata,
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("plan_hash", sa.Text, primary_key=True),
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("pages", sa.Integer, primary_key=True),
    sa.Column("page", sa.Integer, primary_key=True),
    _at("at"),
)

# Personal tokens for the doors beside Slack; only a hash of each is kept.
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # the token's public part
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("slack", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # what its owner calls it
    sa.Column("hash", sa.Text, nullable=False),
    _at("created_at"),
    _at("expires_at"),
    _at("used_at", nullable=True),
    _at("revoked_at", nullable=True),
    sa.Index("tokens_of_person", "person", "expires_at"),
    sa.Index("tokens_end", "expires_at"),
)

# Second factors. `last_counter`: the last time step whose code was taken.
second_factors = sa.Table(
    "second_factors",
    metadata,
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("slack", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),  # encrypted; '' until the first is confirmed
    sa.Column("pending", sa.Text, nullable=False),  # encrypted; '' when none is being set up
    _at("pending_at", nullable=True),
    sa.Column("told", sa.Text, nullable=False),  # CHANNEL/TS of the message that tells `pending`
    _at("created_at"),
    _at("confirmed_at", nullable=True),
    sa.Column("last_counter", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    _at("failed_at", nullable=True),
)

# What one person was told about one request, in order: once, by any number of bots.
notices = sa.Table(
    "notices",
    metadata,
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # approvals.telling.Kind
    sa.Column("plan_hash", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("slack", sa.Text, nullable=False),  # TEAM/USER
    sa.Column("absent", sa.Text, nullable=False),  # in whose place they may vote, or ''
    _at("at"),
)

# A schedule's firing happens once, however many processes look at the clock.
firings = sa.Table(
    "firings",
    metadata,
    sa.Column("schedule", sa.Text, primary_key=True),
    sa.Column("due_at", TIMESTAMP(timezone=True), primary_key=True),
    _at("at"),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("detail", JSONB, nullable=False),
)

# Where a database stood when; see `store.marks`.
wal_marks = sa.Table(
    "wal_marks",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("at", TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("system_identifier", sa.Text, nullable=False),
    sa.Column("timeline", sa.Integer, nullable=False),
    sa.Column("lsn", sa.Text, nullable=False),  # such as 1/6B000028
    sa.Column("next_xid", sa.BigInteger, nullable=False),
)

# Continuous archiving of one database, as its keeper saw it last.
archives = sa.Table(
    "archives",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    _at("at"),
    sa.Column("keeper", sa.Text, nullable=False),  # the worker that looks after it
    sa.Column("method", sa.Text, nullable=False),  # jobs.backup_settings.ArchiveMethod
    sa.Column("state", sa.Text, nullable=False),  # streaming, starting, behind, broken, off
    sa.Column("timeline", sa.Integer),
    sa.Column("last_segment", sa.Text, nullable=False),
    sa.Column("received_lsn", sa.Text),
    sa.Column("lag_bytes", sa.BigInteger),
    sa.Column("slot", sa.Text, nullable=False),
    sa.Column("slot_state", sa.Text, nullable=False),  # active, inactive, lost, missing, ''
    sa.Column("slot_bytes", sa.BigInteger),  # WAL that the server keeps for it
    sa.Column("gaps", JSONB, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("next_step", sa.Text, nullable=False),
)

# Servers that were restored for people to look at. They end by themselves.
scratches = sa.Table(
    "scratches",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), nullable=False),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("backup_id", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),  # the worker's host
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("dsn", sa.Text, nullable=False),  # without a password: it stands in a file there
    sa.Column("state", sa.Text, nullable=False),  # running, removed, lost
    _at("created_at"),
    _at("expires_at"),
    _at("ended_at", nullable=True),
    sa.Column("detail", JSONB, nullable=False),
    sa.Index("scratches_of_database", "database", "created_at"),
    sa.Index(
        "scratches_running", "host", "expires_at", postgresql_where=sa.text("state = 'running'")
    ),
)

# A server that was replaced by a restored one; its data folder is kept aside.
replaced = sa.Table(
    "replaced",
    metadata,
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("aside", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # kept, undone, confirmed
    _at("at"),
    _at("ended_at", nullable=True),
    sa.Column("detail", JSONB, nullable=False),
    sa.Index("replaced_of_database", "database", "at"),
)

# What is wrong right now: told when it begins and when it is over.
alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),  # warning, critical
    sa.Column("state", sa.Text, nullable=False),  # firing, resolved
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("next_step", sa.Text, nullable=False),
    _at("fired_at"),
    _at("seen_at"),
    _at("resolved_at", nullable=True),
    sa.Column("detail", JSONB, nullable=False),
    sa.Column("incident_id", sa.BigInteger, sa.ForeignKey("incidents.id")),
    sa.Column("label", sa.Text, nullable=False, server_default=""),  # which of several, or ''
    sa.Column("value", sa.Double),
    _at("acked_at", nullable=True),
    sa.Column("acked_by", sa.Text, nullable=False, server_default=""),  # PersonId, or ''
    sa.Index(
        "alerts_firing", "database", "name", "label", unique=True,
        postgresql_where=sa.text("state = 'firing'"),
    ),
    sa.Index("alerts_resolved", "resolved_at", postgresql_where=sa.text("state = 'resolved'")),
    sa.Index(
        "alerts_of_incident", "incident_id", postgresql_where=sa.text("incident_id IS NOT NULL")
    ),
    sa.Index("alerts_of_database", "database", "fired_at"),
)  # fmt: skip

# All that fires on a database at a time is told as one.
incidents = sa.Table(
    "incidents",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),  # twokey, alertmanager
    sa.Column("key", sa.Text, nullable=False),  # the database, or Alertmanager's groupKey
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # open, closed
    _at("opened_at"),
    _at("changed_at"),
    _at("closed_at", nullable=True),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("detail", JSONB, nullable=False),
    sa.Index(
        "incidents_open", "source", "key", unique=True,
        postgresql_where=sa.text("state = 'open'"),
    ),
    sa.Index("incidents_of_database", "database", "opened_at"),
)  # fmt: skip

# What the state machine of alerts remembers between two looks.
alert_states = sa.Table(
    "alert_states",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    _at("at"),
    sa.Column("memory", JSONB, nullable=False),
)

silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),  # '' for everything of the database
    sa.Column("source", sa.Text, nullable=False),  # person, run
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),  # PersonId
    sa.Column("by_slack", sa.Text, nullable=False),  # TEAM/USER
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    _at("starts_at"),
    _at("ends_at"),
    _at("ended_at", nullable=True),
    sa.Column("ended_by", sa.Text, nullable=False, server_default=""),
    sa.Index("silences_end", "ends_at"),
)

# Where messages stand that belong to no request.
places = sa.Table(
    "places",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("ts", sa.Text, nullable=False),
)

# The last word on each node of a database.
nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("collector", sa.Text, nullable=False),  # the worker that looks
    _at("at"),  # the last attempt
    sa.Column("ok", sa.Boolean, nullable=False),
    _at("seen_at", nullable=True),  # the last success
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("next_step", sa.Text, nullable=False),
    sa.Column("numbers", JSONB, nullable=False),  # {metric: number or null}
    sa.Column("detail", JSONB, nullable=False),
)

samples = sa.Table(
    "samples",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("at", TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("numbers", JSONB, nullable=False),
    sa.Index("samples_at", "at"),
)

rollups = sa.Table(
    "rollups",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("width", sa.Text, primary_key=True),  # 5m, 1h, 1d
    sa.Column("at", TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("numbers", JSONB, nullable=False),  # {metric: [count, average, least, most, last]}
    sa.Index("rollups_at", "width", "at"),
)

# What the heaviest statements of an hour took.
statements = sa.Table(
    "statements",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("at", TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("queryid", sa.BigInteger, primary_key=True),
    sa.Column("calls", sa.BigInteger, nullable=False),
    sa.Column("total_ms", sa.Double, nullable=False),
    sa.Column("square_ms", sa.Double, nullable=False),  # sum of squared times, for the spread
    sa.Column("max_ms", sa.Double, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("blocks_hit", sa.BigInteger, nullable=False),
    sa.Column("blocks_read", sa.BigInteger, nullable=False),
    sa.Column("temp_blocks", sa.BigInteger, nullable=False),
    sa.Column("wal_bytes", sa.BigInteger, nullable=False),
    sa.Index("statements_at", "at"),
)

statement_texts = sa.Table(
    "statement_texts",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("queryid", sa.BigInteger, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("is_utility", sa.Boolean, nullable=False),
    _at("seen_at"),
)

# How large things were on a day (UTC).
sizes = sa.Table(
    "sizes",
    metadata,
    sa.Column("database", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),  # database, volume, volume_total, wal, table X
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger),
    sa.Index("sizes_day", "day"),
)

# What our runs have applied; the database's own bookkeeping says what is applied now.
applied_migrations = sa.Table(
    "applied_migrations",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("tool", sa.Text, nullable=False),  # postgres.migrate.words.Tool
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("down_sha256", sa.Text, nullable=False),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    _at("applied_at"),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("detail", JSONB, nullable=False),
    _at("rolled_back_at", nullable=True),
    sa.Column("rolled_back_by", sa.BigInteger, sa.ForeignKey("requests.id")),
    sa.Index("applied_migrations_of", "database", "version", sa.text("applied_at DESC")),
    sa.Index(
        "applied_migrations_once", "request_id", "version", unique=True,
        postgresql_where=sa.text("request_id IS NOT NULL AND rolled_back_at IS NULL"),
    ),
)  # fmt: skip

# Rehearsals on restored copies. `subject`: hash of what was rehearsed, in which order.
rehearsals = sa.Table(
    "rehearsals",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    _at("at"),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("backup_id", sa.Text, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("data_bytes", sa.BigInteger, nullable=False),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("detail", JSONB, nullable=False),
    sa.Index("rehearsals_of", "database", "subject", sa.text("at DESC")),
)

# Data that was kept instead of dropped. `kept`: where it stands now, as schema.name.
kept_aside = sa.Table(
    "kept_aside",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),  # table, column, rows
    sa.Column("original", sa.Text, nullable=False),
    sa.Column("kept", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    _at("at"),
    _at("until"),
    _at("told_at", nullable=True),
    _at("ended_at", nullable=True),
    sa.Column("ended_by", sa.BigInteger, sa.ForeignKey("requests.id")),
    sa.Column("outcome", sa.Text, nullable=False, server_default=""),  # dropped, put back
    sa.Column("detail", JSONB, nullable=False),
    sa.Index(
        "kept_aside_of", "database", "until", postgresql_where=sa.text("ended_at IS NULL")
    ),
    sa.Index(
        "kept_aside_once", "database", "kept", unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)  # fmt: skip

# After a change: is the picture worse than before it? before, seen: {metric: number}.
watches = sa.Table(
    "watches",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # watching, fine, worse
    _at("at"),
    _at("until"),
    _at("ended_at", nullable=True),
    sa.Column("before", JSONB, nullable=False),
    sa.Column("seen", JSONB, nullable=False),
    sa.Column("undo", JSONB, nullable=False),  # {operation, params} of the way back, or {}
    sa.Index("watches_once", "request_id", unique=True),
    sa.Index("watches_open", "database", postgresql_where=sa.text("state <> 'fine'")),
)

# The phases of a declared change that have been done, in order.
change_phases = sa.Table(
    "change_phases",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    _at("at"),
    sa.Column("detail", JSONB, nullable=False),
    sa.Index("change_phases_of", "database", "change", "id"),
    sa.Index(
        "change_phases_once",
        "request_id",
        "change",
        "phase",
        unique=True,
        postgresql_where=sa.text("request_id IS NOT NULL"),
    ),
)

# Promotions that were seen in clusters. `request_id`: our run that did it; None: not ours.
cluster_events = sa.Table(
    "cluster_events",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("system", sa.Text, nullable=False),
    sa.Column("timeline", sa.BigInteger, nullable=False),
    sa.Column("old_node", sa.Text, nullable=False),
    sa.Column("new_node", sa.Text, nullable=False),
    _at("old_at"),
    _at("silent_at", nullable=True),
    _at("promoted_at", nullable=True),
    _at("at"),
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id")),
    sa.Index("cluster_events_once", "database", "system", "timeline", unique=True),
    sa.Index("cluster_events_at", "at"),
)

# Rehearsed disasters. `ended_at` is null while one runs; at most one does.
drills = sa.Table(
    "drills",
    metadata,
    sa.Column("request_id", sa.BigInteger, sa.ForeignKey("requests.id"), primary_key=True),
    sa.Column("run_key", sa.Text, nullable=False),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # jobs.cluster_settings.DrillKind
    _at("started_at"),
    _at("ended_at", nullable=True),
    sa.Column("phase", sa.Text, nullable=False),  # jobs.drill_words.Phase
    sa.Column("report", JSONB(none_as_null=True)),  # jobs.drill_words.DrillReport
    sa.Column("sha256", sa.Text),  # of the report's canonical text
    sa.Index(
        "drills_one_open", sa.text("(true)"), unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
    sa.Index("drills_of_database", "database", sa.text("started_at DESC")),
)  # fmt: skip
