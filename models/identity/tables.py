"""Users and their memberships in stores. Sessions live in Redis (gateway.py)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class User(Base):
    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'agent', 'admin')", name="role"),
        Index("uq_users_email_lower", text("lower(email)"), unique=True),
        Index("ix_users_agents", "id", postgresql_where=text("role = 'agent'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str | None] = mapped_column(Text, comment="Argon2id; null until an invite is accepted")
    first_name: Mapped[str] = mapped_column(Text, default="")
    last_name: Mapped[str] = mapped_column(Text, default="")
    role: Mapped[str] = mapped_column(Text, default="user")
    created_at: Mapped[datetime]


class Membership(Base):
    __tablename__ = "memberships"
    __table_args__ = (CheckConstraint("role IN ('owner', 'manager', 'staff')", name="role"), Index(None, "user_id"))

    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    role: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class Invite(Base):
    """A token that lets an invited user in; it is good once, and not for ever."""

    __tablename__ = "invites"
    __table_args__ = (UniqueConstraint("token_hash"), Index(None, "store_id", "user_id"), Index(None, "user_id"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    token_hash: Mapped[str] = mapped_column(Text, comment="SHA-256 of the token, in hexadecimal")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]
