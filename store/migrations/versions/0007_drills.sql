-- A rehearsed disaster. `ended_at` is null while it runs; `report`: see jobs.drill_words, null
-- where it was ended by another because its run was over; `sha256`: of the report's canonical text.
CREATE TABLE drills (
    request_id bigint NOT NULL REFERENCES requests (id),
    run_key text NOT NULL,
    database text NOT NULL,
    environment text NOT NULL,
    kind text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    phase text NOT NULL,
    report jsonb,
    sha256 text,
    PRIMARY KEY (request_id),
    CONSTRAINT drills_hashed CHECK ((report IS NULL) = (sha256 IS NULL)),
    CONSTRAINT drills_reported_at_the_end CHECK (report IS NULL OR ended_at IS NOT NULL)
);
-- One disaster at a time, in the whole fleet, whoever writes SQL.
CREATE UNIQUE INDEX drills_one_open ON drills ((true)) WHERE ended_at IS NULL;
CREATE INDEX drills_of_database ON drills (database, started_at DESC);

-- What was reported is evidence: nobody writes it anew.
CREATE FUNCTION refuse_new_report() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the drill of request % has ended and stays as it was reported', OLD.request_id
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER drills_final BEFORE UPDATE ON drills FOR EACH ROW
    WHEN (OLD.ended_at IS NOT NULL) EXECUTE FUNCTION refuse_new_report();
CREATE TRIGGER drills_stay BEFORE DELETE OR TRUNCATE ON drills
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT, UPDATE ON drills TO twokey_app;
