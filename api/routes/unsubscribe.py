"""The way out of e-mails: a page for people, and the one click (RFC 8058) of their mail programs. No sign-in needed."""

from __future__ import annotations

import html
from string import Template
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import HTMLResponse

from api.dependencies import Process, Tx, sign_in_limit
from api.services import wall_clock
from models.errors import NotFound
from models.notifications import writes
from models.notifications.unsubscribing import Subscription, UnsubscribeTokens

PAGE: Final = Template(
    """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="robots" content="noindex"><title>$title</title></head>
<body><h1>$title</h1><p>$text</p>
<form method="post" action="?token=$token$undo"><button>$button</button></form>
</body>
</html>
"""
)
ESSENTIAL: Final = "E-mails about the store's licences keep coming: it depends on them."

router = APIRouter(prefix="/unsubscribe", tags=["notifications"], dependencies=[Depends(sign_in_limit)])


async def _subscription(token: Annotated[str, Query(max_length=200)], services: Process) -> Subscription:
    """The subscription that a signed link names; NotFound for any other link."""
    found = UnsubscribeTokens(services.settings.jwt_keys).read(token)
    if found is None:
        raise NotFound("this link is not one of ours")
    return found


Ours = Annotated[Subscription, Depends(_subscription)]


@router.get("", response_class=HTMLResponse)
async def ask(token: str, subscription: Ours) -> HTMLResponse:
    """Ask first: programs that look links up must not unsubscribe anybody."""
    return _page("Unsubscribe", f"No more e-mails about this store? {ESSENTIAL}", "Unsubscribe", token)


@router.post("", response_class=HTMLResponse)
async def unsubscribe(token: str, subscription: Ours, tx: Tx, undo: bool = False) -> HTMLResponse:
    """End the e-mails about a store that are not essential; with `undo=true`, begin them again."""
    if undo:
        await writes.opt_in(tx, subscription)
        return _page("Subscribed again", "You get e-mails about this store.", "Unsubscribe", token)
    await writes.opt_out(tx, subscription, wall=wall_clock())
    return _page("Unsubscribed", ESSENTIAL, "Undo", token, undo="&amp;undo=true")


def _page(title: str, text: str, button: str, token: str, *, undo: str = "") -> HTMLResponse:
    return HTMLResponse(PAGE.substitute(title=title, text=text, button=button, token=html.escape(token), undo=undo))
