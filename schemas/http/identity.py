"""Shapes of users, sign-in, tokens and memberships."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import email_validator
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.http.common import Body, Id, Shape
from schemas.http.stores import NewStore, StoreKind, StoreOut, StoreRole

EMAIL_CHARS_MAX = 254

# Reserved domains (RFC 6761: .test, .local …) are allowed: addresses are only checked for their syntax here, whether
# mail arrives is found out by sending it. This list is the library's documented switch.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def normalise_email(text: str) -> str:
    """The one spelling under which an address is stored and looked up; ValueError when it is none."""
    try:
        return email_validator.validate_email(text.strip(), check_deliverability=False).normalized.lower()
    except email_validator.EmailNotValidError:
        raise ValueError("this is not an e-mail address") from None


Email = Annotated[str, StringConstraints(max_length=EMAIL_CHARS_MAX), AfterValidator(normalise_email)]
NewPassword = Annotated[str, Field(min_length=10, max_length=128)]
AnyPassword = Annotated[str, Field(max_length=1024, description="checked against the stored one")]
PersonName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class Register(Body):
    email: Email
    password: NewPassword
    first_name: PersonName
    last_name: PersonName
    store: NewStore


class Login(Body):
    """`store_id` chooses the active store; left out, it is the user's only store, if there is just one."""

    email: Email
    password: AnyPassword
    store_id: Id | None = None


class Refresh(Body):
    """`store_id` switches the active store."""

    refresh_token: Token
    store_id: Id | None = None


class AcceptInvite(Body):
    token: Token
    password: NewPassword


class AdminCredentials(Body):
    email: Email
    password: AnyPassword


class NewAdmin(Body):
    email: Email
    password: NewPassword


class NewAgent(Body):
    email: Email
    password: NewPassword
    first_name: PersonName
    last_name: PersonName


class UserChange(Body):
    """A field left out stays."""

    first_name: PersonName | None = None
    last_name: PersonName | None = None
    avatar_media_id: Id | None = None

    @model_validator(mode="after")
    def _names_stay(self) -> Self:
        for field in ("first_name", "last_name"):
            if field in self.model_fields_set and getattr(self, field) is None:
                raise ValueError(f"{field} cannot be null")
        return self


class Invite(Body):
    email: Email
    first_name: PersonName
    last_name: PersonName
    role: StoreRole


class UserOut(Shape):
    id: UUID
    email: str
    first_name: str
    last_name: str
    role: Literal["user", "agent", "admin"]
    avatar_url: str | None = None
    created_at: datetime


class MembershipOut(Shape):
    store_id: UUID
    user_id: UUID
    role: StoreRole
    created_at: datetime


class Tokens(Shape):
    """`expires_in` is the access token's, in seconds."""

    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"] = "Bearer"
    expires_in: int


class StoreOfUser(Shape):
    """A store as the list of a user's stores has it; `role` is the user's in it."""

    id: UUID
    name: str
    type: StoreKind
    role: StoreRole


class Registered(Shape):
    user: UserOut
    store: StoreOut
    tokens: Tokens


class LoggedIn(Shape):
    user: UserOut
    stores: list[StoreOfUser]
    active_store_id: UUID | None
    tokens: Tokens


class Refreshed(Shape):
    tokens: Tokens
    active_store_id: UUID | None


class InviteAccepted(Shape):
    user: UserOut
    stores: list[StoreOfUser]
    tokens: Tokens


class AdminLoggedIn(Shape):
    user: UserOut
    tokens: Tokens


class MemberOut(Shape):
    user: UserOut
    membership: MembershipOut


class Invited(Shape):
    """`invite_token` is there in dev and test only; elsewhere it goes by e-mail."""

    user: UserOut
    membership: MembershipOut
    invite_token: str | None = None
