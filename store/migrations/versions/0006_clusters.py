"""What was seen of clusters: promotions, each once."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    bind = op.get_bind()
    # Several statements at once need the driver's simple protocol; see 0001.
    bind.exec_driver_sql("SELECT 1")
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    bind.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))
