"""The emulated parts: events of the fake GCS, the mends of the BigQuery emulator, the mail sink."""

from __future__ import annotations

import asyncio
import http.server
import json
import smtplib
import threading
import time
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import AlreadyExists, OutOfRange
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, bigquery_storage_v1
from google.cloud.bigquery_storage_v1 import types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir

PROJECT = "packstream-local"
PARTS = ("gcs", "bigquery", "smtp")


OBJECT = "a/b.png"


class Api(http.server.BaseHTTPRequestHandler):
    """Stands in for the API: refuses the first push of OBJECT, takes the second.

    Other pushes are another stack's: its API listened on this port before, and it tries until somebody takes them.
    """

    pushes: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["message"]["attributes"]["objectId"] == OBJECT:
            self.pushes.append((self.path, body))
        self.send_response(503 if len(self.pushes) == 1 else 204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def emulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    data = DataDir.at(tmp_path_factory.mktemp("emulators"))
    yield {"data": str(data.root), **asyncio.run(stack_up(data, PARTS, bound=True)).site.addresses}
    asyncio.run(stack_down(data, PARTS))


@pytest.fixture
def api(emulators: dict[str, str]) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    Api.pushes = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(emulators["PORT"])), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Api.pushes
    server.shutdown()
    server.server_close()


def test_an_upload_reaches_the_api_as_a_pubsub_push_again_until_it_is_taken(
    emulators: dict[str, str], api: list[tuple[str, dict[str, Any]]]
) -> None:
    url = f"{emulators['GCS_ENDPOINT']}/upload/storage/v1/b/packstream-media/o?uploadType=media&name={OBJECT}"
    request = urllib.request.Request(url, data=b"\x89PNG", headers={"Content-Type": "image/png"})
    urllib.request.urlopen(request).close()
    deadline = time.monotonic() + 10
    while len(api) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    (path, first), (_, second) = api
    assert path == "/webhooks/gcs?token=dev-gcs-webhook-token"
    assert first == second
    attributes = first["message"]["attributes"]
    assert attributes["eventType"] == "OBJECT_FINALIZE"
    assert attributes["bucketId"] == "packstream-media"
    assert attributes["objectId"] == OBJECT
    events = Path(emulators["data"]) / "gcs" / "events"
    while any(events.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(events.iterdir()) == []


def test_a_mail_is_kept_as_a_file(emulators: dict[str, str]) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Order 7", "shop@example.test", "buyer@example.test"
    mail.set_content("It is on its way.")
    host, _, port = emulators["SMTP_URL"].removeprefix("smtp://").partition(":")
    with smtplib.SMTP(host, int(port)) as smtp:
        smtp.send_message(mail)
    (kept,) = (Path(emulators["data"]) / "mail").glob("*.eml")
    assert "X-Envelope-To: buyer@example.test" in kept.read_text()
    assert "It is on its way." in kept.read_text()


@pytest.fixture(scope="module")
def warehouse(emulators: dict[str, str]) -> bigquery.Client:
    client = bigquery.Client(
        PROJECT,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options=ClientOptions(api_endpoint=emulators["BIGQUERY_ENDPOINT"]),
    )
    client.create_dataset("facts")
    items = bigquery.SchemaField(
        "items",
        "RECORD",
        "REPEATED",
        fields=[bigquery.SchemaField("sku", "STRING"), bigquery.SchemaField("n", "INT64")],
    )
    client.create_table(bigquery.Table(f"{PROJECT}.facts.orders", [bigquery.SchemaField("id", "STRING"), items]))
    return client


def row_descriptor() -> descriptor_pb2.DescriptorProto:
    """A message like a row of ``orders``; names within it are relative, as the Write API wants."""
    row = descriptor_pb2.DescriptorProto(name="Row")
    item = row.nested_type.add(name="Item")
    item.field.add(name="sku", number=1, type=9, label=1)
    item.field.add(name="n", number=2, type=3, label=1)
    row.field.add(name="id", number=1, type=9, label=1)
    row.field.add(name="items", number=2, type=11, label=3, type_name="Item")
    return row


def row_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="row.proto", syntax="proto2", message_type=[row_descriptor()])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Row"))


def append_request(stream: str, rows: list[Any], offset: int) -> types.AppendRowsRequest:
    data = types.AppendRowsRequest.ProtoData(
        writer_schema=types.ProtoSchema(proto_descriptor=row_descriptor()),
        rows=types.ProtoRows(serialized_rows=[one.SerializeToString() for one in rows]),
    )
    return types.AppendRowsRequest(write_stream=stream, offset=offset, proto_rows=data)


def test_committed_streams_take_nested_rows_once_by_offset(
    emulators: dict[str, str], warehouse: bigquery.Client
) -> None:
    channel = grpc.insecure_channel(emulators["BIGQUERY_GRPC_ENDPOINT"])
    writer = bigquery_storage_v1.BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))
    table = f"projects/{PROJECT}/datasets/facts/tables/orders"
    stream = writer.create_write_stream(parent=table, write_stream=types.WriteStream(type_="COMMITTED")).name
    row = row_class()
    order = row(id="o1", items=[{"sku": "x", "n": 2}, {"sku": "y", "n": 3}])
    named = append_request(stream, [order], 0)
    unnamed = append_request("", [row(id="o2", items=[{"sku": "z", "n": 4}])], 1)
    answers = list(writer.append_rows(iter([named, unnamed])))
    assert [answer.append_result.offset for answer in answers] == [0, 1]
    again = next(iter(writer.append_rows(iter([append_request(stream, [order], 0)]))))
    gap = next(iter(writer.append_rows(iter([append_request(stream, [order], 9)]))))
    assert again.error.code == AlreadyExists.grpc_status_code.value[0]
    assert gap.error.code == OutOfRange.grpc_status_code.value[0]
    query = "SELECT o.id, SUM(i.n) AS n FROM facts.orders o, UNNEST(o.items) i GROUP BY o.id ORDER BY o.id"
    assert [(found.id, found.n) for found in warehouse.query_and_wait(query)] == [("o1", 5), ("o2", 4)]
