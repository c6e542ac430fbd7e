"""Sends the e-mails that are due: claim in a transaction, send outside any, record the outcome.

Any number of mailers may run. One that dies between claim and record leaves its e-mails to `unknown`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from agents.outages import passing
from agents.rounds import Rounds
from models.database import SessionFactory
from models.notifications import deliveries
from models.notifications.deliveries import Claimed, Composer
from models.notifications.gateway import EmailSender, Outcome, Uncertain

AT_ONCE: Final = 8
GIVE_UP_S: Final = 1.0
PAUSE_S: Final = 1.0  #: after something went wrong

EMAILS = Counter("packstream_emails_total", "e-mails that an attempt was made for", ["template", "status"])
EMAILS_UNKNOWN = Counter("packstream_emails_unknown_total", "e-mails whose claim ended without an outcome: alarm")

log = structlog.get_logger(__name__)


class Mailer:
    """One process's share in sending. `timeout_s`: of one attempt; a claim lasts twice as long."""

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        sender: EmailSender,
        composer: Composer,
        timeout_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._sessions, self._sender, self._composer, self._now = sessions, sender, composer, now
        self._timeout_s = timeout_s
        self._give_up_at = 0.0

    def rounds(self) -> Rounds:
        """The loop that calls `round`; what is being sent when it is cancelled is finished first."""
        return Rounds("mailer", self.round, self._sender.close, finish=True)

    async def round(self) -> int:
        """Send what is due, up to AT_ONCE e-mails; how many."""
        await self._give_up()
        async with self._sessions.begin() as tx:
            claimed = await deliveries.claim(
                tx,
                self._composer,
                limit=AT_ONCE,
                claim_for=timedelta(seconds=2 * self._timeout_s),
                now=self._now(),
                wall=datetime.now(UTC),
            )
        await asyncio.gather(*(self._deliver(one) for one in claimed))
        return len(claimed)

    async def _deliver(self, claimed: Claimed) -> None:
        outcome = await self._send(claimed)
        status = await self._record(claimed, outcome)
        EMAILS.labels(claimed.mail.template, status).inc()
        log.info(
            "email_attempted",
            delivery_id=str(claimed.mail.id),
            template=claimed.mail.template,
            status=status,
            detail=outcome.detail,
        )

    async def _send(self, claimed: Claimed) -> Outcome:
        try:
            async with asyncio.timeout(1.5 * self._timeout_s):
                return await self._sender.send(claimed.mail, timeout_s=self._timeout_s)
        except Exception as exc:  # a sender's bug, or a server that holds on: it may have been sent
            log.warning("email_uncertain", delivery_id=str(claimed.mail.id), error=type(exc).__name__, exc_info=True)
            return Uncertain(f"no answer: {type(exc).__name__}")

    async def _record(self, claimed: Claimed, outcome: Outcome) -> str:
        """Until it is written down, or the process ends: then the claim's end makes it unknown."""
        while True:
            try:
                async with self._sessions.begin() as tx:
                    status = await deliveries.record(
                        tx, claimed.mail.id, claimed.claim, outcome, wall=datetime.now(UTC)
                    )
                return status or "lost"
            except Exception as exc:
                if not passing(exc):
                    raise
                log.warning("email_outcome_waits", delivery_id=str(claimed.mail.id), error=repr(exc))
                await asyncio.sleep(PAUSE_S)

    async def _give_up(self) -> None:
        if time.monotonic() < self._give_up_at:
            return
        self._give_up_at = time.monotonic() + GIVE_UP_S
        async with self._sessions.begin() as tx:
            for delivery_id in await deliveries.give_up(tx, wall=datetime.now(UTC)):
                EMAILS_UNKNOWN.inc()
                log.error("email_unknown", delivery_id=str(delivery_id))
