"""What all bodies share: strict JSON types, refused unknown fields, text that can be stored, times, ids, problems."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
NESTING_MAX = 32


def parse_time(text: object) -> datetime:
    """An RFC 3339 time as an aware datetime in UTC; ValueError for anything else, naive times included."""
    if isinstance(text, datetime):
        return text
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        raise ValueError("expected an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("there is no such time, or it is out of range") from None


def parse_day(text: object) -> object:
    """A calendar day as YYYY-MM-DD, nothing else that could be read as one."""
    if isinstance(text, str) and not DAY.fullmatch(text):
        raise ValueError("expected a day, such as 2026-01-31")
    return text


def refuse_nul(value: Any, depth: int = 0) -> None:
    """ValueError when a string in the JSON value has a NUL, which Postgres cannot store, or nests too deeply."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("text must not contain NUL")
    elif depth > NESTING_MAX:
        raise ValueError(f"nested deeper than {NESTING_MAX}")
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_nul(key, depth + 1)
            refuse_nul(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            refuse_nul(item, depth + 1)


def without_nul(text: str) -> str:
    """The text; ValueError for one that Postgres cannot look for."""
    refuse_nul(text)
    return text


class Body(BaseModel):
    """Base of request bodies: JSON types are not coerced ("5" and true are no integers), unknown fields refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        refuse_nul(value)
        return value


class Shape(BaseModel):
    """Base of answers: built by name or from rows' attributes."""

    model_config = ConfigDict(from_attributes=True)


Id = Annotated[UUID, Field(strict=False)]  #: an id in a body or a query; malformed: 422
Time = Annotated[datetime, BeforeValidator(parse_time, json_schema_input_type=str)]
Day = Annotated[date, BeforeValidator(parse_day, json_schema_input_type=date), Field(strict=False)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
Asked = Annotated[Line, AfterValidator(without_nul)]  #: text in a query, which no Body looks through
Prose = Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000)]


class ProblemError(BaseModel):
    """One entry of a problem's `errors`."""

    field: str
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is what clients switch on."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[ProblemError]
