"""Prometheus metrics of quotes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Histogram

from api.services import Services
from models.cart.writes import Quoted

quotes: Final = PrometheusCounter("packstream_cart_quotes", "Quotes made", registry=None)
lines: Final = PrometheusCounter("packstream_cart_quote_lines", "Lines of quotes", labelnames=["status"], registry=None)
warnings: Final = PrometheusCounter(
    "packstream_cart_quote_warnings", "Warnings of quotes, at all levels", labelnames=["code"], registry=None
)
tokens: Final = PrometheusCounter(
    "packstream_cart_tokens", "Ad tokens sent with quotes: kept, or why not", labelnames=["outcome"], registry=None
)
seconds: Final = Histogram(
    "packstream_cart_quote_seconds",
    "Time of one quote, from its first statement to its last",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=None,
)

log = structlog.get_logger(__name__)


@asynccontextmanager
async def count_quotes(services: Services) -> AsyncIterator[None]:
    """A part of the process: shows these in what it exports."""
    for metric in (quotes, lines, warnings, tokens, seconds):
        services.metrics.register(metric)
    yield


def record(quoted: Quoted, *, elapsed_s: float) -> None:
    """Count and log a quote; of its tokens only how many there were."""
    cart = quoted.cart
    statuses = Counter(item.status for item in cart.items)
    levels = [cart.warnings, *(line.warnings for line in cart.items), *(part.warnings for part in cart.vendor_groups)]
    codes = Counter(warning["code"] for level in levels for warning in level)
    quotes.inc()
    seconds.observe(elapsed_s)
    for status, count in statuses.items():
        lines.labels(status).inc(count)
    for code, count in codes.items():
        warnings.labels(code).inc(count)
    outcomes = {"kept": len(cart.attribution_tokens)} | {str(why): count for why, count in quoted.dropped.items()}
    for outcome, count in outcomes.items():
        tokens.labels(outcome).inc(count)
    log.info(
        "cart_quoted",
        cart_id=str(cart.id),
        lines=dict(statuses),
        vendors=len(cart.vendor_groups),
        total_cents=cart.total_cents,
        warnings=dict(codes),
        tokens=outcomes,
        duration_ms=round(elapsed_s * 1000, 1),
    )
