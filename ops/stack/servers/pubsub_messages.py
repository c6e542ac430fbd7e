"""The two messages of google.pubsub.v1 that the fake GCS speaks, described here field by field."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "google.pubsub.v1"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _describe(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str, *, repeated: bool = False
) -> None:
    """Add a field; ``kind`` is ``string``, ``bytes`` or the full name of a message."""
    field = message.field.add(name=name, number=number)
    field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
    scalar = {"string": _FIELD.TYPE_STRING, "bytes": _FIELD.TYPE_BYTES}.get(kind)
    field.type = scalar or _FIELD.TYPE_MESSAGE
    if scalar is None:
        field.type_name = kind


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="packstream/pubsub.proto", package=PACKAGE, syntax="proto3")
    message = file.message_type.add(name="PubsubMessage")
    entry = message.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    _describe(entry, "key", 1, "string")
    _describe(entry, "value", 2, "string")
    _describe(message, "data", 1, "bytes")
    _describe(message, "attributes", 2, f".{PACKAGE}.PubsubMessage.AttributesEntry", repeated=True)
    request = file.message_type.add(name="PublishRequest")
    _describe(request, "topic", 1, "string")
    _describe(request, "messages", 2, f".{PACKAGE}.PubsubMessage", repeated=True)
    response = file.message_type.add(name="PublishResponse")
    _describe(response, "message_ids", 1, "string", repeated=True)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [f"{PACKAGE}.{described.name}" for described in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


_CLASSES = _classes()
PublishRequest = _CLASSES[f"{PACKAGE}.PublishRequest"]
PublishResponse = _CLASSES[f"{PACKAGE}.PublishResponse"]
