"""E-mails from the queue to a mail server: each at most once, and what became of it is known or said to be unknown."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agents.mailer import Mailer
from models.database import make_sessions, new_id
from models.identity.invites import InviteTokens
from models.notifications import deliveries
from models.notifications.deliveries import Composer
from models.notifications.gateway import (
    EmailSender,
    LogSender,
    Mail,
    Outcome,
    PutOff,
    Refused,
    SendGridSender,
    Sent,
    SmtpSender,
    Uncertain,
)
from models.notifications.unsubscribing import UnsubscribeTokens
from ops.settings import Settings
from schemas.records import EmailRequested
from tests.agent_site import StoreOfTest, execute, make_store, rows
from tests.api_driver import Api, new_email, ok, problem
from tests.mail_servers import Answers, SendGrid, sendgrid_server, silent_server, smtp_server

SENDER = "packstream <no-reply@shop.test>"
PUBLIC_URL = "http://shop.test"
ONE_CLICK = {"content-type": "application/x-www-form-urlencoded"}


class Recording:
    """A sender that keeps what it was given and answers as told."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.outcome: Outcome | Exception = outcome or Sent("p-1", "250 OK")
        self.mails: list[Mail] = []

    async def send(self, mail: Mail, *, timeout_s: float) -> Outcome:
        self.mails.append(mail)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def engine(alone_settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(alone_settings.sqlalchemy_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def store(engine: AsyncEngine) -> StoreOfTest:
    return await make_store(engine, owner=new_email(), manager=new_email(), staff=new_email())


def mailer(engine: AsyncEngine, settings: Settings, sender: EmailSender, *, timeout_s: float = 5) -> Mailer:
    composer = Composer(PUBLIC_URL, InviteTokens(settings.jwt_keys), UnsubscribeTokens(settings.jwt_keys))
    return Mailer(
        sessions=make_sessions(engine),
        sender=sender,
        composer=composer,
        timeout_s=timeout_s,
        now=lambda: datetime.now(UTC),
    )


async def queue(
    engine: AsyncEngine,
    store: StoreOfTest,
    user_id: UUID,
    template: str = "order_nudged",
    values: Mapping[str, str] | None = None,
) -> UUID:
    """A queued e-mail; its id."""
    event = EmailRequested(
        event_id=new_id(),
        occurred_at=datetime.now(UTC),
        actor="test",
        store_id=store.id,
        user_id=user_id,
        template=template,
        values=dict(values or {"number": "17", "order_id": "o-1"}),
    )
    async with make_sessions(engine).begin() as tx:
        assert await deliveries.queue(tx, event, wall=datetime.now(UTC))
        assert not await deliveries.queue(tx, event, wall=datetime.now(UTC))
    return event.event_id


async def state(engine: AsyncEngine, delivery_id: UUID) -> tuple[Any, ...]:
    """(status, attempts) of an e-mail."""
    found = await rows(engine, "SELECT status, attempts FROM email_deliveries WHERE id = :id", id=delivery_id)
    return found[0]


async def detail(engine: AsyncEngine, delivery_id: UUID) -> str:
    return str((await rows(engine, "SELECT detail FROM email_deliveries WHERE id = :id", id=delivery_id))[0][0])


def first(store: StoreOfTest) -> tuple[str, UUID]:
    """The owner."""
    return next(iter(store.users.items()))


def some_mail(to: str = "bob@example.test") -> Mail:
    return Mail(new_id(), "order_nudged", to, "Subject", "Text", "<p>Text</p>", datetime.now(UTC))


# -- the mailer -----------------------------------------------------------------------------------------------------


async def test_a_queued_mail_is_sent_once_to_the_address_of_now(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    _, user_id = first(store)
    delivery_id = await queue(engine, store, user_id)
    moved = new_email()
    await execute(engine, "UPDATE users SET email = :email WHERE id = :id", email=moved, id=user_id)
    sender = Recording()
    mailers = [mailer(engine, alone_settings, sender) for _ in range(3)]
    done = await asyncio.gather(*(one.round() for one in mailers))
    assert sum(done) == 1
    assert [mail.to for mail in sender.mails] == [moved]
    assert await state(engine, delivery_id) == ("sent", 1)
    assert await mailers[0].round() == 0


async def test_put_off_mails_are_tried_again_later_and_not_for_ever(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    delivery_id = await queue(engine, store, first(store)[1])
    sender = Recording(PutOff("451 later"))
    one = mailer(engine, alone_settings, sender)
    assert await one.round() == 1
    assert await state(engine, delivery_id) == ("queued", 1)
    assert await one.round() == 0  # not before its time
    wait = "SELECT next_attempt_at - now() FROM email_deliveries"
    assert timedelta(seconds=1) < (await rows(engine, wait))[0][0] < timedelta(seconds=10)
    for _ in range(20):
        await execute(engine, "UPDATE email_deliveries SET next_attempt_at = now() WHERE status = 'queued'")
        await one.round()
    assert await state(engine, delivery_id) == ("failed", 12)
    assert len(sender.mails) == 12


async def test_a_refused_mail_is_recorded_and_not_tried_again(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    delivery_id = await queue(engine, store, first(store)[1])
    one = mailer(engine, alone_settings, Recording(Refused("550 no such mailbox")))
    await one.round()
    assert await state(engine, delivery_id) == ("refused", 1)
    assert await detail(engine, delivery_id) == "550 no such mailbox"
    assert await one.round() == 0


@pytest.mark.parametrize("outcome", [Uncertain("no answer"), RuntimeError("a bug")])
async def test_a_mail_whose_fate_is_uncertain_is_never_sent_again(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest, outcome: Any
) -> None:
    delivery_id = await queue(engine, store, first(store)[1])
    sender = Recording(outcome)
    one = mailer(engine, alone_settings, sender)
    for _ in range(3):
        await one.round()
    assert await state(engine, delivery_id) == ("unknown", 1)
    assert len(sender.mails) == 1


async def test_a_claim_that_ends_without_outcome_is_unknown_until_its_holder_tells(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    delivery_id = await queue(engine, store, first(store)[1])
    composer = Composer(PUBLIC_URL, InviteTokens(alone_settings.jwt_keys), UnsubscribeTokens(alone_settings.jwt_keys))
    sessions, wall = make_sessions(engine), datetime.now(UTC)
    async with sessions.begin() as tx:
        (claimed,) = await deliveries.claim(tx, composer, limit=5, claim_for=timedelta(seconds=1), now=wall, wall=wall)
    sender = Recording()
    later = mailer(engine, alone_settings, sender)
    async with sessions.begin() as tx:
        assert await deliveries.give_up(tx, wall=wall) == []  # not before the claim ends
    async with sessions.begin() as tx:
        assert await deliveries.give_up(tx, wall=wall + timedelta(seconds=2)) == [delivery_id]
    assert await later.round() == 0
    assert sender.mails == []
    async with sessions.begin() as tx:
        assert await deliveries.record(tx, delivery_id, new_id(), Sent(), wall=wall) is None
    assert await state(engine, delivery_id) == ("unknown", 1)
    async with sessions.begin() as tx:
        assert await deliveries.record(tx, delivery_id, claimed.claim, Sent(), wall=wall) == "sent"


async def test_nobody_who_has_left_or_never_ran_the_store_gets_its_mail(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    owner, _, staff = store.users.values()
    ids = [await queue(engine, store, user) for user in (owner, staff)]
    await execute(engine, "DELETE FROM memberships WHERE user_id = :id", id=owner)
    sender = Recording()
    await mailer(engine, alone_settings, sender).round()
    assert sender.mails == []
    assert [await detail(engine, delivery_id) for delivery_id in ids] == ["no_member", "no_manager"]
    assert [await state(engine, delivery_id) for delivery_id in ids] == [("skipped", 0), ("skipped", 0)]


async def test_one_mail_that_cannot_be_written_holds_up_no_other(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    user_id = first(store)[1]
    bad = await queue(engine, store, user_id, "invite", {"invite_id": "none"})
    good = await queue(engine, store, user_id)
    sender = Recording()
    await mailer(engine, alone_settings, sender).round()
    assert await state(engine, bad) == ("skipped", 0)
    assert await state(engine, good) == ("sent", 1)


async def test_what_is_being_sent_when_the_mailer_ends_is_finished(
    engine: AsyncEngine, alone_settings: Settings, store: StoreOfTest
) -> None:
    delivery_id = await queue(engine, store, first(store)[1])
    started = asyncio.Event()

    class Slow(Recording):
        async def send(self, mail: Mail, *, timeout_s: float) -> Outcome:
            started.set()
            await asyncio.sleep(0.5)
            return await super().send(mail, timeout_s=timeout_s)

    task = asyncio.create_task(mailer(engine, alone_settings, Slow()).rounds().run())
    await asyncio.wait_for(started.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state(engine, delivery_id) == ("sent", 1)


# -- invites and unsubscribing, through the API ------------------------------------------------------------------------


async def test_an_invites_token_goes_by_mail_and_is_on_no_topic(alone: Api, engine: AsyncEngine) -> None:
    owner = await alone.register("vendor")
    invited = {"email": new_email(), "first_name": "Grace", "last_name": "H", "role": "staff"}
    answer = await alone.as_(owner).post("/api/v1/stores/me/users/invite", json=invited)
    token = answer.json()["data"]["invite_token"]
    payloads = await rows(engine, "SELECT payload FROM outbox_events WHERE type = 'email_requested'")
    assert len(payloads) == 1
    assert token.encode() not in payloads[0][0]
    assert invited["email"].encode() not in payloads[0][0]
    (row,) = await rows(
        engine,
        "SELECT m.store_id, u.id, i.id FROM invites i JOIN users u ON u.id = i.user_id JOIN memberships m ON"
        " m.user_id = u.id",
    )
    invite = StoreOfTest(row[0], {invited["email"]: row[1]})
    delivery_id = await queue(engine, invite, row[1], "invite", {"invite_id": str(row[2])})
    sender = Recording()
    await mailer(engine, alone.services.settings, sender).round()
    (mail,) = sender.mails
    assert mail.to == invited["email"]
    assert token in mail.text
    assert token in mail.html
    assert f"{PUBLIC_URL}/accept-invite#token={token}" in mail.text
    assert mail.unsubscribe is None
    assert await state(engine, delivery_id) == ("sent", 1)
    accepted = await alone.http.post("/api/v1/auth/accept-invite", json={"token": token, "password": "long enough pw"})
    assert ok(accepted)["user"]["email"] == invited["email"]
    late = await queue(engine, invite, row[1], "invite", {"invite_id": str(row[2])})
    await mailer(engine, alone.services.settings, sender).round()
    assert await detail(engine, late) == "invite_over"
    assert len(sender.mails) == 1


async def test_one_click_unsubscribes_from_all_but_the_essential(alone: Api, engine: AsyncEngine) -> None:
    store = await make_store(engine, owner=new_email(), manager=new_email())
    owner, manager = store.users.values()
    settings, sender = alone.services.settings, Recording()
    await queue(engine, store, owner)
    await mailer(engine, settings, sender).round()
    link = sender.mails.pop().unsubscribe
    assert link is not None
    path = link.removeprefix(PUBLIC_URL)
    page = await alone.http.get(path)
    assert page.headers["content-type"].startswith("text/html")
    await queue(engine, store, owner)  # looking at the page unsubscribes nobody
    await mailer(engine, settings, sender).round()
    assert len(sender.mails) == 1
    clicked = await alone.http.post(path, content="List-Unsubscribe=One-Click", headers=ONE_CLICK)
    assert clicked.status_code == 200, clicked.text
    again = await alone.http.post(path, content="List-Unsubscribe=One-Click", headers=ONE_CLICK)
    assert again.status_code == 200
    sender.mails.clear()
    muted = await queue(engine, store, owner)
    await queue(engine, store, owner, "license_expired", {"number": "L-1"})
    await queue(engine, store, manager)
    await mailer(engine, settings, sender).round()
    assert await detail(engine, muted) == "unsubscribed"
    assert sorted((mail.template, mail.unsubscribe is None) for mail in sender.mails) == [
        ("license_expired", True),
        ("order_nudged", False),
    ]
    assert (await alone.http.post(path + "&undo=true")).status_code == 200
    await queue(engine, store, owner)
    await mailer(engine, settings, sender).round()
    assert len(sender.mails) == 3


@pytest.mark.parametrize("token", ["x", "A" * 64, ""])
async def test_a_made_up_unsubscribe_link_is_none(api: Api, token: str) -> None:
    problem(await api.http.get(f"/unsubscribe?token={token}"), 404, "not_found")
    problem(await api.http.post(f"/unsubscribe?token={token}"), 404, "not_found")


async def test_operators_see_mails_of_unknown_fate(alone: Api, engine: AsyncEngine) -> None:
    store = await make_store(engine, owner=new_email())
    settings = alone.services.settings
    ids = [await queue(engine, store, first(store)[1]) for _ in range(3)]
    await mailer(engine, settings, Recording(Uncertain("no answer"))).round()
    sent = await queue(engine, store, first(store)[1])
    await mailer(engine, settings, Recording()).round()
    admin = await alone.register_admin()
    client = alone.as_(admin)
    counted = ok(await client.get("/api/admin/ops/overview"))["emails"]
    assert (counted["unknown"], counted["sent"], counted["queued"]) == (3, 1, 0)
    page = await client.get("/api/admin/ops/emails?status=unknown&limit=2")
    cursor = page.json()["meta"]["next_cursor"]
    rest = await client.get(f"/api/admin/ops/emails?status=unknown&limit=2&cursor={cursor}")
    assert [UUID(email["id"]) for email in (*ok(page), *ok(rest))] == ids[::-1]
    assert rest.json()["meta"]["next_cursor"] is None
    (only,) = ok(await client.get("/api/admin/ops/emails?status=sent"))
    assert (only["id"], only["provider_id"]) == (str(sent), "p-1")
    assert first(store)[0] not in page.text
    buyer = await alone.register()
    problem(await alone.as_(buyer).get("/api/admin/ops/emails"), 403, "forbidden")


# -- the senders ------------------------------------------------------------------------------------------------------


async def send_by_smtp(url: str, *, timeout_s: float = 3, to: str = "bob@example.test") -> Outcome:
    return await SmtpSender(url, sender=SENDER).send(some_mail(to), timeout_s=timeout_s)


async def test_smtp_sends_and_says_so() -> None:
    answers = Answers()
    async with smtp_server(answers) as url:
        assert isinstance(await send_by_smtp(url), Sent)
    assert b"Subject: Subject" in answers.taken[0]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (Answers(rcpt="550 5.1.1 <bob@example.test> unknown"), Refused),
        (Answers(rcpt="450 greylisted"), PutOff),
        (Answers(data="554 spam"), Refused),
        (Answers(data="452 full"), PutOff),
        (Answers(data="999"), PutOff),
        (Answers(data=None), Uncertain),
    ],
)
async def test_smtp_answers_mean_what_they_say(answers: Answers, kind: type[Outcome]) -> None:
    async with smtp_server(answers) as url:
        outcome = await send_by_smtp(url, timeout_s=1.5)
    assert isinstance(outcome, kind), outcome
    assert "bob" not in outcome.detail


async def test_smtp_without_a_server_or_a_greeting_is_put_off() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert isinstance(await send_by_smtp(f"smtp://127.0.0.1:{nobody.getsockname()[1]}"), PutOff)
    async with silent_server() as (url, _):
        assert isinstance(await send_by_smtp(url, timeout_s=0.5), PutOff)


async def test_smtp_keeps_a_password_from_a_server_without_encryption() -> None:
    async with smtp_server(Answers()) as url:
        outcome = await send_by_smtp(url.replace("//", "//user:secret@"))
    assert isinstance(outcome, PutOff)
    assert "secret" not in outcome.detail


async def test_smtp_takes_addresses_beyond_ascii() -> None:
    answers = Answers()
    async with smtp_server(answers) as url:
        assert isinstance(await send_by_smtp(url, to="zoë@example.test"), Sent)


async def test_sendgrid_gets_the_mail_with_its_ids() -> None:
    async with sendgrid_server(SendGrid()) as fake:
        sender = SendGridSender("key", sender=SENDER, api_base=fake.base)
        mail = some_mail()
        assert await sender.send(mail, timeout_s=5) == Sent("m-1", "202")
        await sender.close()
    ((authorization, body),) = fake.requests
    assert authorization == "Bearer key"
    assert body["personalizations"] == [
        {"to": [{"email": "bob@example.test"}], "custom_args": {"delivery_id": str(mail.id)}}
    ]
    assert body["headers"]["Message-ID"] == f"<{mail.id}@shop.test>"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Refused), (401, PutOff), (429, PutOff), (503, PutOff), (500, Uncertain)]
)
async def test_sendgrid_statuses_mean_what_they_say(status: int, kind: type[Outcome]) -> None:
    async with sendgrid_server(SendGrid(status)) as fake:
        sender = SendGridSender("key", sender=SENDER, api_base=fake.base)
        outcome = await sender.send(some_mail(), timeout_s=5)
        await sender.close()
    assert isinstance(outcome, kind)
    assert "bob" not in outcome.detail


async def test_sendgrid_away_is_put_off_and_silent_is_uncertain() -> None:
    async with silent_server() as (url, _):
        sender = SendGridSender("key", sender=SENDER, api_base=url.replace("smtp", "http"))
        assert isinstance(await sender.send(some_mail(), timeout_s=0.5), Uncertain)
    assert isinstance(await sender.send(some_mail(), timeout_s=5), PutOff)
    await sender.close()


async def test_the_log_has_neither_address_nor_text() -> None:
    with structlog.testing.capture_logs() as logs:
        assert isinstance(await LogSender().send(some_mail(), timeout_s=1), Sent)
    assert logs
    assert "bob" not in repr(logs)
    assert "Subject" not in repr(logs)
