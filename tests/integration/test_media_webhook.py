"""The webhook by which the storage tells of uploads: from whom, about what, and what comes of it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ops.settings import Settings
from tests.api_driver import Api, Person, problem, running
from tests.media_bucket import (
    CONTENT,
    MEDIA,
    PUSH,
    announce,
    events,
    object_name,
    push,
    push_body,
    put,
    status_of,
)


async def test_news_that_concern_nobody_are_taken(gcs_api: Api, uploader: Person) -> None:
    made = await announce(gcs_api, uploader)
    await put(made["upload"], CONTENT["image/png"])
    name = object_name(made, uploader)
    for answer in (
        await push(gcs_api, name, bucket="another"),
        await push(gcs_api, name, event="OBJECT_DELETE"),
        await push(gcs_api, "some/other/thing"),
        await push(gcs_api, name.upper()),
        await push(gcs_api, f"{uuid4()}/{uuid4()}/original"),
    ):
        assert answer.status_code == 204
    assert await status_of(gcs_api, uploader, made["media"]["id"]) == "pending"


async def test_push_must_come_from_where_it_should(gcs_api: Api) -> None:
    body = push_body("x")
    path = "/webhooks/gcs"
    for answer in (
        await gcs_api.http.post(path, json=body),
        await gcs_api.http.post(f"{path}?token=", json=body),
        await gcs_api.http.post(f"{path}?token=wrong", json=body),
        await gcs_api.http.post(path, json=body, headers={"authorization": "Bearer dev-gcs-webhook-token"}),
        await gcs_api.http.post(f"{path}?token=wrong", content=b"{"),
    ):
        problem(answer, 401, "unauthenticated")


async def test_shared_token_is_good_in_dev_and_test_only(gcs_settings: Settings) -> None:
    async with running(gcs_settings.model_copy(update={"packstream_env": "prod"})) as gcs_api:
        problem(await gcs_api.http.post(PUSH, json=push_body("x")), 401, "unauthenticated")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"{}", b'{"message": 7}', b'{"message": {"attributes": {"eventType": "x"}}}', b"\xff"],
)
async def test_malformed_pushes_are_refused(gcs_api: Api, body: bytes) -> None:
    problem(await gcs_api.http.post(PUSH, content=body), 422, "validation_failed")


async def test_push_is_not_taken_while_the_storage_is_away(gcs_settings: Settings) -> None:
    async with running(gcs_settings.model_copy(update={"gcs_endpoint": "http://127.0.0.1:1"})) as gcs_api:
        uploader = await gcs_api.register()
        made = await announce(gcs_api, uploader)
        problem(await push(gcs_api, object_name(made, uploader)), 503, "unavailable")


async def test_object_whose_row_has_gone_is_to_be_deleted(gcs_api: Api, uploader: Person) -> None:
    made = await announce(gcs_api, uploader)
    media_id = made["media"]["id"]
    assert (await gcs_api.as_(uploader).delete(f"{MEDIA}/{media_id}")).status_code == 204
    await put(made["upload"], CONTENT["image/png"])
    assert (await push(gcs_api, object_name(made, uploader))).status_code == 204
    first, late = await events(gcs_api, media_id)
    assert (first.reason, late.reason) == ("deleted", "late_upload")
    assert late.object_names == [object_name(made, uploader)]
