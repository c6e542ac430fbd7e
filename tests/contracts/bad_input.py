"""Requests made from the OpenAPI document: bodies that fit it, and what does not, property by property."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from models.database import new_id
from tests.api_driver import PASSWORD, new_email

Schema = Mapping[str, Any]
Json = Any

#: Wrong for most fields; where one is right, the answer is a good one.
BAD_VALUES: Final[tuple[Json, ...]] = (
    None,
    True,
    -1,
    0.5,
    10**30,
    "",
    "a\0b",
    "\ud800",
    "/../../etc/passwd",
    "x" * 5_000,
    [],
    [None],
    {},
    {"a": 1},
)
BAD_BODIES: Final = (b"", b"{", b"null", b"[]", b'"text"', b"17", b"[" * 100_000, b'{"\xff": 1}', b'{"a": NaN}')
BAD_QUERIES: Final = ("", "-1", "0", "101", "1e9", "abc", "null", str(10**30), "a\0b", "../x", "🌿" * 300, "\x7f")
BAD_IDS: Final = ("17", "not-an-id", "%00", "%ED%A0%80", "%2e%2e", "0" * 36, "9" * 500, "%F0%9F%8C%BF")
BAD_TIMES: Final = ("", "now", "2027-01-01", "2027-01-01T00:00:00", "9999-12-31T23:59:59-12:00", "-1", "é")
BAD_KEYS: Final = ("", "a b", "x" * 256, "é", "\x7f")
EXAMPLES: Final[Mapping[str, Json]] = {
    "password": PASSWORD,
    "state": "OR",
    "issuing_state": "OR",
    "country": "US",
    "postal_code": "97201",
    "content_type": "image/png",
    "expires_on": "2028-01-01",
    "starts_at": "2026-01-01T00:00:00Z",
    "ends_at": "2028-01-01T00:00:00Z",
    "daily_budget_cents": 100,
}


@dataclass(frozen=True)
class Document:
    """The OpenAPI document."""

    whole: Schema

    def resolved(self, schema: Schema) -> Schema:
        """The schema that a reference leads to, and of several the first that is not null."""
        while "$ref" in schema or "anyOf" in schema:
            if "anyOf" in schema:
                schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
            else:
                schema = self.whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    def body_of(self, operation: Schema) -> Schema | None:
        """The schema of what an operation takes; None where it takes nothing."""
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        return None if content is None else self.resolved(content["schema"])

    def example(self, schema: Schema, name: str = "") -> Json:
        """A value that fits, as far as the document says what does."""
        schema = self.resolved(schema)
        if name in EXAMPLES:
            return EXAMPLES[name]
        if name == "email":
            return new_email()
        if "enum" in schema or "const" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        match schema.get("type"):
            case "object":
                properties = schema.get("properties", {})
                return {name: self.example(properties.get(name, {}), name) for name in schema.get("required", ())}
            case "array":
                return [self.example(schema.get("items", {}))] * max(1, schema.get("minItems", 0))
            case "integer" | "number":
                return max(1, schema.get("minimum", 0))
            case "boolean":
                return True
        formats = {"uuid": str(new_id()), "date": "2027-01-01", "date-time": "2027-01-01T00:00:00Z"}
        return formats.get(schema.get("format", ""), "x" * max(1, schema.get("minLength", 0)))

    def spoilt(self, schema: Schema, base: Json, *, depth: int = 2) -> Iterator[Json]:
        """The base with one property wrong, each in turn and in each way; two levels deep."""
        schema = self.resolved(schema)
        if schema.get("type") == "array" and isinstance(base, list) and depth:
            yield from ([one] for one in self.spoilt(schema["items"], base[0] if base else {}, depth=depth - 1))
        if schema.get("type") != "object" or not isinstance(base, dict):
            return
        for name, inner in schema.get("properties", {}).items():
            yield from (base | {name: value} for value in BAD_VALUES)
            if depth:
                whole = self.example(inner, name)
                yield from (base | {name: value} for value in self.spoilt(inner, whole, depth=depth - 1))
