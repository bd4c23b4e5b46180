"""What Prometheus hears of WAL archives."""

from __future__ import annotations

from datetime import UTC, datetime

from bot.metrics import Metrics
from store.archives import ArchiveState, forget_archive, save_archive
from store.connect import Store

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


async def test_the_archives_of_the_store_are_shown_and_go_when_they_are_gone(store: Store) -> None:
    metrics = Metrics()
    async with store.begin() as conn:
        await save_archive(
            conn,
            ArchiveState(
                database="orders", at=AT, keeper="w1", method="receive", state="behind",
                lag_bytes=4096, slot_bytes=8192,
            ),
        )  # fmt: skip
        await save_archive(
            conn,
            ArchiveState(
                database="reports", at=AT, keeper="w1", method="command", state="streaming"
            ),
        )
    await metrics.read(store)
    shown = metrics.text().decode()
    assert 'twokey_archive_ok{database="orders"} 0.0' in shown
    assert 'twokey_archive_ok{database="reports"} 1.0' in shown
    assert 'twokey_archive_lag_bytes{database="orders"} 4096.0' in shown
    assert 'twokey_archive_slot_bytes{database="orders"} 8192.0' in shown
    assert 'twokey_archive_lag_bytes{database="reports"}' not in shown
    async with store.begin() as conn:
        await forget_archive(conn, "orders")
    await metrics.read(store)
    assert "orders" not in metrics.text().decode()
