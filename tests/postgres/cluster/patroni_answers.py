"""What Patroni 3.0.2 and 4.1.5 answered, recorded from real clusters of two nodes."""

from __future__ import annotations

from typing import Final

CLUSTER_3: Final = """{"members": [{"name": "pg1", "role": "leader", "state": "running",
 "api_url": "http://127.0.0.1:18211/patroni", "host": "127.0.0.1", "port": 18201, "timeline": 2},
 {"name": "pg2", "role": "replica", "state": "running",
 "api_url": "http://127.0.0.1:18212/patroni", "host": "127.0.0.1", "port": 18202, "timeline": 2,
 "lag": 0}], "scheduled_switchover": {"at": "2026-11-24T09:00:00+00:00", "from": "pg1",
 "to": "pg2"}}"""
CLUSTER_3_STOPPING: Final = """{"members": [{"name": "pg1", "role": "leader", "state": "running",
 "api_url": "http://127.0.0.1:18211/patroni", "host": "127.0.0.1", "port": 18201, "timeline": 1},
 {"name": "pg2", "role": "replica", "state": "stopping",
 "api_url": "http://127.0.0.1:18212/patroni", "host": "127.0.0.1", "port": 18202,
 "lag": "unknown"}]}"""
CLUSTER_4: Final = """{"members": [{"name": "pg1", "role": "sync_standby", "state": "streaming",
 "api_url": "http://127.0.0.1:18211/patroni", "host": "127.0.0.1", "port": 18201, "timeline": 2,
 "pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "50",
 "new_value": "60"}}, "receive_lag": 0, "receive_lsn": "0/3000290", "replay_lag": 0,
 "replay_lsn": "0/3000290", "lag": 0, "lsn": "0/3000290"}, {"name": "pg2", "role": "leader",
 "state": "running", "api_url": "http://127.0.0.1:18212/patroni", "host": "127.0.0.1",
 "port": 18202, "timeline": 2, "pending_restart": true, "pending_restart_reason":
 {"max_connections": {"old_value": "50", "new_value": "60"}}}], "pause": true,
 "scope": "demo"}"""
PRIMARY_3: Final = """{"state": "running",
 "postmaster_start_time": "2026-11-23 05:04:41.843842+00:00", "role": "master",
 "server_version": 150018, "xlog": {"location": 50332320}, "timeline": 2, "replication":
 [{"usename": "replicator", "application_name": "pg2", "client_addr": "127.0.0.1",
 "state": "streaming", "sync_state": "async", "sync_priority": 0}], "cluster_unlocked": true,
 "failsafe_mode_is_active": true, "dcs_last_seen": 1795410362,
 "database_system_identifier": "7711228421685569403",
 "patroni": {"version": "3.0.2", "scope": "demo"}}"""
REPLICA_3: Final = """{"state": "running",
 "postmaster_start_time": "2026-11-23 05:05:40.285602+00:00", "role": "replica",
 "server_version": 150018, "xlog": {"received_location": 50332320,
 "replayed_location": 50332320, "replayed_timestamp": null, "paused": false}, "timeline": 2,
 "dcs_last_seen": 1795410363, "database_system_identifier": "7711228421685569403",
 "patroni": {"version": "3.0.2", "scope": "demo"}, "pause": true}"""
SYNC_4: Final = """{"state": "running",
 "postmaster_start_time": "2026-11-23 05:21:28.998005+00:00", "role": "replica",
 "server_version": 150018, "xlog": {"received_location": 50332304,
 "replayed_location": 50332304, "replayed_timestamp": "2026-11-23 05:21:35.713111+00:00",
 "paused": false}, "sync_standby": true, "timeline": 2, "replication_state": "streaming",
 "dcs_last_seen": 1795411300, "database_system_identifier": "7711232699962903981",
 "pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "50",
 "new_value": "60"}}, "patroni": {"version": "4.1.5", "scope": "demo", "name": "pg1"}}"""
CREATING_4: Final = """{"state": "creating replica", "role": "uninitialized",
 "dcs_last_seen": 1795411280, "patroni": {"version": "4.1.5", "scope": "demo", "name": "pg2"}}"""
CONFIG: Final = """{"failsafe_mode": true, "loop_wait": 1, "maximum_lag_on_failover": 1048576,
 "postgresql": {"parameters": {"fsync": "off", "max_connections": 50}, "use_pg_rewind": true},
 "primary_start_timeout": 0, "retry_timeout": 3, "ttl": 5}"""
HISTORY: Final = """[[1, 50332040, "no recovery target specified",
 "2026-11-23T05:05:36.984169+00:00", "pg1"], [2, 50332616, "no recovery target specified"]]"""
BAD_REQUEST: Final = """<!DOCTYPE HTML>
<html lang="en">
    <head>
        <meta charset="utf-8">
        <title>Error response</title>
    </head>
    <body>
        <h1>Error response</h1>
        <p>Error code: 400</p>
        <p>Message: Bad Request.</p>
        <p>Error code explanation: 400 - Bad request syntax or unsupported method.</p>
    </body>
</html>
"""
