"""What SendGrid tells of e-mails: signed, each event once, kept on the delivery; who sends mail back gets less."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from models.database import new_id
from models.notifications.gateway import SendGridSender
from ops.settings import Settings
from tests.agent_site import StoreOfTest, execute, make_store, rows
from tests.api_driver import Api, new_email, problem, running
from tests.integration.test_emails import SENDER, Recording, mailer, queue, state
from tests.mail_servers import SendGrid, sendgrid_server

URL = "/webhooks/sendgrid"
KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def public(key: Any) -> str:
    """As SendGrid's settings show it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


@pytest.fixture
def settings(api_settings: Settings) -> Settings:
    return api_settings.model_copy(update={"sendgrid_webhook_public_key": f"{public(OTHER)}, {public(KEY)}"})


@pytest.fixture
async def listening(settings: Settings) -> AsyncIterator[Api]:
    async with running(settings) as api:
        yield api


@pytest.fixture
async def engine(api_settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(api_settings.sqlalchemy_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def store(engine: AsyncEngine) -> StoreOfTest:
    return await make_store(engine, owner=new_email())


def owner(store: StoreOfTest) -> UUID:
    return next(iter(store.users.values()))


def event_of(delivery_id: UUID, event: str = "bounce", **more: Any) -> dict[str, Any]:
    return {
        "email": "bob@example.test",
        "timestamp": 1_800_000_000,
        "event": event,
        "sg_event_id": str(new_id()),
        "sg_message_id": "m-1.filter",
        "category": ["order_nudged"],
        "delivery_id": str(delivery_id),
    } | more


async def post(
    api: Api, body: Any, *, key: ec.EllipticCurvePrivateKey = KEY, signed: bytes | None = None, **headers: str
) -> httpx.Response:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    timestamp = str(int(time.time()))
    signature = key.sign(timestamp.encode() + (payload if signed is None else signed), ec.ECDSA(SHA256()))
    named = {
        "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
        "x-twilio-email-event-webhook-timestamp": timestamp,
    }
    return await api.http.post(URL, content=payload, headers={"content-type": "application/json"} | named | headers)


async def tell(api: Api, *events: dict[str, Any]) -> None:
    answer = await post(api, list(events))
    assert (answer.status_code, answer.content) == (204, b""), answer.text


async def sent(engine: AsyncEngine, settings: Settings, store: StoreOfTest) -> UUID:
    """An e-mail that SendGrid took."""
    delivery_id = await queue(engine, store, owner(store))
    await mailer(engine, settings, Recording()).round()
    assert await state(engine, delivery_id) == ("sent", 1)
    return delivery_id


async def known(engine: AsyncEngine, delivery_id: UUID) -> tuple[Any, ...]:
    """(status, detail, whether it bounced) of an e-mail."""
    sql = "SELECT status, detail, bounced_at IS NOT NULL FROM email_deliveries WHERE id = :id"
    (found,) = await rows(engine, sql, id=delivery_id)
    return found


@pytest.mark.parametrize(
    ("event", "more", "expected"),
    [
        ("bounce", {"type": "bounce", "status": "5.1.1", "reason": "no <bob@example.test>\0 here"}, True),
        ("dropped", {"reason": "Bounced Address"}, True),
        ("bounce", {"type": "blocked", "status": "4.2.2", "reason": "full"}, False),
    ],
)
async def test_what_came_back_is_refused_with_the_reason_and_without_the_address(
    listening: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest, event: str, more: Any, expected: bool
) -> None:
    delivery_id = await sent(engine, settings, store)
    await tell(listening, event_of(delivery_id, event, **more))
    status, detail, bounced = await known(engine, delivery_id)
    assert (status, bounced) == ("refused", expected)
    assert detail.startswith(event)
    assert more["reason"].split()[0] in detail
    assert "bob" not in detail


async def test_an_address_that_sent_mail_back_gets_only_what_is_essential(
    listening: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest
) -> None:
    await tell(listening, event_of(await sent(engine, settings, store)))
    letter = {"number": "L-1", "expires_on": "2027-05-01", "license_id": "l-1"}
    nudge = await queue(engine, store, owner(store))
    notice = await queue(engine, store, owner(store), "license_expiring", letter)
    sender = Recording()
    await mailer(engine, settings, sender).round()
    assert [mail.id for mail in sender.mails] == [notice]
    assert (await known(engine, nudge))[:2] == ("skipped", "mail_came_back")


async def test_a_full_mailbox_is_written_to_again(
    listening: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest
) -> None:
    await tell(listening, event_of(await sent(engine, settings, store), type="blocked"))
    await sent(engine, settings, store)


@pytest.mark.parametrize("event", ["spamreport", "unsubscribe", "group_unsubscribe"])
async def test_who_wants_no_more_is_unsubscribed_from_the_store(
    listening: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest, event: str
) -> None:
    first = await sent(engine, settings, store)
    await tell(listening, event_of(first, event), event_of(first, event))
    again = await queue(engine, store, owner(store))
    await mailer(engine, settings, Recording()).round()
    assert (await known(engine, again))[:2] == ("skipped", "unsubscribed")
    assert (await state(engine, first))[0] == "sent"


async def test_an_event_counts_once_and_what_came_back_stays_so(
    listening: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest
) -> None:
    delivery_id, marks = await sent(engine, settings, store), "SELECT 1 FROM inbox WHERE consumer = 'webhook:sendgrid'"
    before = len(await rows(engine, marks))
    bounce = event_of(delivery_id, reason="first")
    await tell(listening, bounce, bounce)
    await tell(listening, bounce | {"reason": "second"}, event_of(delivery_id, "delivered"))
    assert await known(engine, delivery_id) == ("refused", "bounce first", True)
    assert len(await rows(engine, marks)) == before + 2


async def test_news_of_a_delivery_settle_what_nobody_knew(
    listening: Api, engine: AsyncEngine, store: StoreOfTest
) -> None:
    delivery_id = await queue(engine, store, owner(store))
    await execute(
        engine, "UPDATE email_deliveries SET status = 'unknown', next_attempt_at = NULL WHERE id = :id", id=delivery_id
    )
    await tell(listening, event_of(delivery_id, "delivered", response="250 OK"))
    assert await known(engine, delivery_id) == ("sent", "delivered 250 OK", False)


async def test_the_message_id_names_the_mail_where_the_argument_is_missing(
    listening: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest
) -> None:
    """Both as our own sender hands them to SendGrid."""
    delivery_id = await queue(engine, store, owner(store))
    async with sendgrid_server(SendGrid()) as fake:
        sender = SendGridSender("key", sender=SENDER, api_base=fake.base)
        await mailer(engine, settings, sender).round()
        await sender.close()
    ((_, request),) = fake.requests
    assert request["personalizations"][0]["custom_args"] == {"delivery_id": str(delivery_id)}
    event = event_of(delivery_id, **{"smtp-id": request["headers"]["Message-ID"]})
    del event["delivery_id"]
    await tell(listening, event)
    assert (await known(engine, delivery_id))[0] == "refused"


async def test_news_that_concern_nobody_are_taken(listening: Api, engine: AsyncEngine) -> None:
    await tell(
        listening,
        event_of(new_id()),
        event_of(new_id(), "open"),
        event_of(new_id(), "made up tomorrow"),
        event_of(new_id()) | {"delivery_id": "17"},
    )
    await tell(listening)


async def test_a_bad_signature_is_refused_and_changes_nothing(
    listening: Api, api: Api, engine: AsyncEngine, settings: Settings, store: StoreOfTest
) -> None:
    delivery_id = await sent(engine, settings, store)
    events, stranger = [event_of(delivery_id)], ec.generate_private_key(ec.SECP256R1())
    for answer in (
        await post(listening, events, key=stranger),
        await post(listening, events, signed=b"[]"),
        await post(listening, events, **{"x-twilio-email-event-webhook-timestamp": "1"}),
        await post(listening, events, **{"x-twilio-email-event-webhook-signature": "not base64!"}),
        await post(listening, events, **{"x-twilio-email-event-webhook-signature": "AAAA"}),
        await listening.http.post(URL, json=events),
        await post(api, events),  # no key is set there
    ):
        problem(answer, 400, "invalid_signature")
    assert (await state(engine, delivery_id))[0] == "sent"
    assert (await post(listening, events, key=OTHER)).status_code == 204


async def test_signed_nonsense_is_told_apart(listening: Api) -> None:
    for body in (b"", b"{}", b"[1]", b"[{}]", b"nonsense", b'[{"event":"\\ud800"}]', b"null"):
        problem(await post(listening, body), 422, "validation_failed")


def test_another_kind_of_key_is_refused_at_the_start() -> None:
    for key in ("nonsense", "AAAA", public(ed25519.Ed25519PrivateKey.generate())):
        with pytest.raises(ValidationError, match="sendgrid_webhook_public_key"):
            Settings(database_url="postgresql://", sendgrid_webhook_public_key=key)
