-- The application's role: what the bot and the workers run as. It owns nothing.
DO $$
BEGIN
    CREATE ROLE twokey_app NOLOGIN;
EXCEPTION
    -- It is there from another database of this cluster, or another session is making it.
    WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'twokey_app', 'MEMBER') THEN
        EXECUTE format('GRANT twokey_app TO %I', current_user);
    END IF;
END $$;

GRANT USAGE ON SCHEMA public TO twokey_app;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO twokey_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO twokey_app;

GRANT INSERT ON policies, gates, votes, run_log TO twokey_app;
GRANT INSERT, UPDATE ON requests, runs, run_steps, outbox, backups, verifications TO twokey_app;
GRANT INSERT, UPDATE, DELETE ON posts, deliveries TO twokey_app;
GRANT DELETE ON outbox TO twokey_app;
GRANT INSERT, UPDATE, DELETE ON pgqueuer, pgqueuer_log, pgqueuer_schedules, pgqueuer_statistics TO twokey_app;

REVOKE ALL ON FUNCTION audit_append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_append TO twokey_app;
