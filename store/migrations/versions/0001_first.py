"""The first schema: requests, votes, audit, runs, outbox, backups, and PgQueuer's tables."""

from pathlib import Path

from alembic import op
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment

revision = "0001"
down_revision = None


def upgrade() -> None:
    for script in (
        Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"),
        QueryBuilderEnvironment().build_install_query(),
        Path(__file__).with_name("0001_grants.sql").read_text(encoding="utf-8"),
    ):
        _execute_script(script)


def _execute_script(script: str) -> None:
    """Several statements at once need the driver's simple protocol."""
    bind = op.get_bind()
    # The driver's adapter begins its transaction with its first own statement; without
    # this one the script would commit by itself.
    bind.exec_driver_sql("SELECT 1")
    bind.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))
