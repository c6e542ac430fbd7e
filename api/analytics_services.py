"""What dashboards need in an API process: the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.services import Services
from models.analytics.gateway import Warehouse
from ops.warehouse import warehouse


@dataclass(frozen=True, slots=True)
class AnalyticsServices:
    """`warehouse` may be away: dashboards answer 503 until it is back."""

    warehouse: Warehouse


@asynccontextmanager
async def run_analytics(services: Services) -> AsyncIterator[None]:
    """A part of the process: the connection to the warehouse, made with the first question."""
    store = await asyncio.to_thread(warehouse, services.settings)
    services.add(AnalyticsServices(store))
    try:
        yield
    finally:
        await asyncio.to_thread(store.close)
