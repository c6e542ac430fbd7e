"""``python -m tests.two_agents``: a worker with two agents on one topic; the second needs the event's store.

Their effect is an audit entry that bears the agent's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import faust
from sqlalchemy.ext.asyncio import AsyncSession

from agents import kafka
from agents.app import create_app
from agents.runtime.effects import EffectAgent
from models import audit
from models.database import make_engine, make_sessions
from models.stores import reads as stores
from ops.settings import load_settings
from schemas.records import NotificationRequested
from streams.topics import NOTIFICATIONS_TOPIC

FIRST, SECOND = "first", "second"


def effect(name: str, *, picky: bool) -> Callable[[AsyncSession, NotificationRequested], Awaitable[None]]:
    """A handler that leaves an audit entry."""

    async def handle(tx: AsyncSession, event: NotificationRequested) -> None:
        if picky:
            await stores.store(tx, event.store_id)
        audit.record(
            tx, actor=name, action="seen", object_type="event", object_id=event.event_id, now=event.occurred_at
        )

    return handle


def main() -> None:
    """Run until killed."""
    settings = load_settings()
    app = create_app(settings)
    sessions = make_sessions(make_engine(settings.sqlalchemy_url, pool_size=2, application="two-agents"))
    for name in (FIRST, SECOND):
        topic = app.topic(
            NOTIFICATIONS_TOPIC, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw"
        )
        agent = EffectAgent(
            app,
            name,
            sessions=sessions,
            handlers={"notification_requested": effect(name, picky=name == SECOND)},
            connection=kafka.connection(settings),
        )
        app.agent(topic, name=name, concurrency=1)(agent.run)
    faust.Worker(app, loglevel="WARN", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
