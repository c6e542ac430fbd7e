"""The shape of every successful answer."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


class Envelope(BaseModel, Generic[T]):
    """A successful answer: one thing."""

    data: T


class Meta(BaseModel):
    """`next_cursor` leads to the next page; null on the last."""

    next_cursor: str | None


class ListEnvelope(BaseModel, Generic[T]):
    """A successful answer: a page of things."""

    data: list[T]
    meta: Meta

    @classmethod
    def of(cls, data: list[T], next_cursor: str | None = None) -> ListEnvelope[T]:
        return cls(data=data, meta=Meta(next_cursor=next_cursor))
