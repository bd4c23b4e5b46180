"""Rehearsed disasters: which one is open, and what was reported of those that ended."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    bind = op.get_bind()
    # Several statements at once need the driver's simple protocol; see 0001.
    bind.exec_driver_sql("SELECT 1")
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    bind.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))
