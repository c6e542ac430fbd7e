"""What the fake Stripe does: the few objects that packstream uses, and the news about them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ops.stack.servers.stripe_memory import Memory, Object, Refused

__all__ = ["Account", "Refused"]

API_VERSION = "2026-10-28.endive"
PRICE_CENTS = 9_900
MONTH = timedelta(days=30)
OWN_METHOD = re.compile(r"pm_[0-9a-f]{24}")  #: made here; any other is a token, good for one of these
ENDED = ("canceled", "incomplete_expired")


class Account:
    """Everything of one account. Times are the caller's."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Object]]] = [
            (method, re.compile(f"/v1/{path}"), handler)
            for method, path, handler in (
                ("POST", "customers", self._new_customer),
                ("GET", "customers/([^/]+)", self._getter("customer")),
                ("POST", "customers/([^/]+)", self._change_customer),
                ("GET", "payment_methods/([^/]+)", self._getter("payment_method")),
                ("POST", "payment_methods/([^/]+)/attach", self._attach),
                ("POST", "subscriptions", self._subscribe),
                ("GET", "subscriptions", self._lister("subscription")),
                ("GET", "subscriptions/([^/]+)", self._getter("subscription")),
                ("DELETE", "subscriptions/([^/]+)", self._cancel),
                ("POST", "invoiceitems", self._new_item),
                ("GET", "invoiceitems", self._lister("invoiceitem")),
                ("GET", "invoiceitems/([^/]+)", self._getter("invoiceitem")),
                ("GET", "invoices", self._lister("invoice")),
                ("GET", "invoices/([^/]+)", self._getter("invoice")),
            )
        ]

    def do(self, method: str, path: str, form: Object, now: datetime) -> Object:
        """One request's answer. Raises Refused."""
        for wanted, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match and wanted == method:
                return handler(*match.groups(), form=form, now=now)
        raise Refused(404, "invalid_request_error", f"Unrecognized request URL ({method}: {path}).")

    def incomplete(self) -> list[str]:
        """Subscriptions whose first payment is under way."""
        return [str(one["id"]) for one in self.memory.all("subscription") if one["status"] == "incomplete"]

    def activate(self, subscription_id: str, now: datetime) -> None:
        """The first payment of a subscription: it goes through, unless the card is one of those that fail."""
        found = self.memory.get("subscription", subscription_id)
        if found["status"] != "incomplete":
            return
        if self._fails(found):
            self._invoice(found, now, paid=False)
            return
        self._invoice(found, now, paid=True)
        self.set_status(subscription_id, "active", now)

    def set_status(self, subscription_id: str, status: str, now: datetime) -> None:
        found = self.memory.get("subscription", subscription_id)
        found["status"] = status
        if status == "canceled":
            found["canceled_at"] = found["ended_at"] = seconds(now)
        self.memory.save(found)
        self._tell("deleted" if status == "canceled" else "updated", "customer.subscription", found, now)

    def _getter(self, kind: str) -> Callable[..., Object]:
        return lambda object_id, form, now: self.memory.get(kind, object_id)

    def _lister(self, kind: str) -> Callable[..., Object]:
        def listed(form: Object, now: datetime) -> Object:
            found = [one for one in self.memory.all(kind) if matches(one, form)]
            if (after := form.get("starting_after")) is not None:
                ids = [one["id"] for one in found]
                found = found[ids.index(after) + 1 :] if after in ids else []
            limit = int(form.get("limit", 10))
            return {"object": "list", "url": f"/v1/{kind}s", "data": found[:limit], "has_more": len(found) > limit}

        return listed

    def _new_customer(self, form: Object, now: datetime) -> Object:
        fields = {"created": seconds(now), "metadata": form.get("metadata", {}), "invoice_settings": {}}
        return self.memory.add("customer", "cus", fields | {"description": form.get("description")})

    def _change_customer(self, customer_id: str, form: Object, now: datetime) -> Object:
        found = self.memory.get("customer", customer_id)
        found |= {name: value for name, value in form.items() if name != "expand"}
        self.memory.save(found)
        return found

    def _attach(self, method_id: str, form: Object, now: datetime) -> Object:
        customer = self.memory.get("customer", required(form, "customer"))
        if OWN_METHOD.fullmatch(method_id):
            found = self.memory.get("payment_method", method_id)
            if found["customer"] != customer["id"]:
                raise Refused(400, "invalid_request_error", "It is attached to another customer.", param="customer")
            return found
        if not method_id.startswith("pm_") or method_id.startswith("pm_missing"):
            message = f"No such PaymentMethod: '{method_id}'"
            raise Refused(404, "invalid_request_error", message, code="resource_missing", param="payment_method")
        if method_id.endswith("chargeDeclined"):
            raise Refused(402, "card_error", "Your card was declined.", code="card_declined")
        card = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": now.year + 3}
        fields = {"created": seconds(now), "type": "card", "card": card, "customer": customer["id"]}
        return self.memory.add("payment_method", "pm", fields | {"metadata": {"token": method_id}})

    def _subscribe(self, form: Object, now: datetime) -> Object:
        customer = self.memory.get("customer", required(form, "customer"))
        method = self.memory.get("payment_method", required(form, "default_payment_method"))
        price = required(required(required(form, "items"), "0"), "price")
        item = {
            "id": "si_0",
            "object": "subscription_item",
            "price": {"id": price, "object": "price", "unit_amount": PRICE_CENTS, "currency": "usd"},
            "current_period_start": seconds(now),
            "current_period_end": seconds(now + MONTH),
        }
        made = self.memory.add(
            "subscription",
            "sub",
            {
                "customer": customer["id"],
                "default_payment_method": method["id"],
                "status": "incomplete",
                "created": seconds(now),
                "canceled_at": None,
                "ended_at": None,
                "items": {"object": "list", "data": [item], "has_more": False},
                "metadata": form.get("metadata", {}),
            },
        )
        self._tell("created", "customer.subscription", made, now)
        return made

    def _cancel(self, subscription_id: str, form: Object, now: datetime) -> Object:
        found = self.memory.get("subscription", subscription_id)
        if found["status"] in ENDED:
            message = f"No such subscription: '{subscription_id}'"
            raise Refused(404, "invalid_request_error", message, code="resource_missing", param="id")
        if form.get("invoice_now") == "true":
            self._invoice_pending(found, now)
        self.set_status(subscription_id, "canceled", now)
        return self.memory.get("subscription", subscription_id)

    def _new_item(self, form: Object, now: datetime) -> Object:
        customer = self.memory.get("customer", required(form, "customer"))
        fields = {
            "customer": customer["id"],
            "amount": int(required(form, "amount")),
            "currency": required(form, "currency"),
            "description": form.get("description"),
            "date": seconds(now),
            "created": seconds(now),
            "invoice": None,
            "metadata": form.get("metadata", {}),
        }
        return self.memory.add("invoiceitem", "ii", fields)

    def _invoice(self, subscription: Object, now: datetime, *, paid: bool) -> Object:
        """The subscription's own invoice."""
        return self._new_invoice(subscription, PRICE_CENTS, now, paid=paid)

    def _invoice_pending(self, subscription: Object, now: datetime) -> None:
        """All items that no invoice has yet."""
        items = self.memory.all("invoiceitem")
        pending = [one for one in items if one["customer"] == subscription["customer"] and one["invoice"] is None]
        if not pending:
            return
        invoice = self._new_invoice(subscription, sum(one["amount"] for one in pending), now, paid=True)
        for one in pending:
            self.memory.save(one | {"invoice": invoice["id"]})

    def _new_invoice(self, subscription: Object, amount_cents: int, now: datetime, *, paid: bool) -> Object:
        details = {"subscription": subscription["id"], "metadata": subscription["metadata"]}
        made = self.memory.add(
            "invoice",
            "in",
            {
                "customer": subscription["customer"],
                "status": "paid" if paid else "open",
                "number": f"PS-{len(self.memory.all('invoice')) + 1:04d}",
                "amount_due": amount_cents,
                "amount_paid": amount_cents if paid else 0,
                "currency": "usd",
                "created": seconds(now),
                "period_start": seconds(now),
                "period_end": seconds(now + MONTH),
                "status_transitions": {"paid_at": seconds(now) if paid else None},
                "parent": {"type": "subscription_details", "subscription_details": details},
                "metadata": {},
            },
        )
        self._tell("paid" if paid else "payment_failed", "invoice", made, now)
        return made

    def _fails(self, subscription: Object) -> bool:
        method = self.memory.get("payment_method", subscription["default_payment_method"])
        return "chargeCustomerFail" in method["metadata"]["token"]

    def _tell(self, what: str, about: str, body: Object, now: datetime) -> None:
        event = {
            "created": seconds(now),
            "api_version": API_VERSION,
            "type": f"{about}.{what}",
            "livemode": False,
            "data": {"object": body},
        }
        self.memory.add_news(self.memory.add("event", "evt", event))


def matches(body: Object, form: Object) -> bool:
    """Whether an object is on a list that was asked for with these filters."""
    status = form.get("status")
    if body["object"] == "subscription" and status != "all":
        if status is None and body["status"] == "canceled":
            return False
        if status is not None and body["status"] != status:
            return False
    since = form.get("created", {}).get("gte") if isinstance(form.get("created"), dict) else None
    if since is not None and body["created"] < int(since):
        return False
    return form.get("customer") in (None, body.get("customer"))


def required(form: Object, name: str) -> Any:
    """A parameter, Refused where it is missing."""
    try:
        return form[name]
    except (KeyError, TypeError):
        raise Refused(400, "invalid_request_error", f"Missing required param: {name}.", param=name) from None


def seconds(now: datetime) -> int:
    return int(now.timestamp())
