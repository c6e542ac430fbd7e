"""All tables in one place, for Alembic."""

from models import audit, clock, dead_letters, idempotency, inbox, outbox, positions
from models.ads import tables as ads
from models.analytics import tables as analytics
from models.billing import tables as billing
from models.cart import tables as cart
from models.catalog import tables as catalog
from models.database import Base
from models.delivery import tables as delivery
from models.drafts import tables as drafts
from models.identity import tables as identity
from models.ledger import tables as ledger
from models.licensing import tables as licensing
from models.media import tables as media
from models.notifications import tables as notifications
from models.orders import tables as orders
from models.stores import tables as stores

metadata = Base.metadata

__all__ = [
    "ads",
    "analytics",
    "audit",
    "billing",
    "cart",
    "catalog",
    "clock",
    "dead_letters",
    "delivery",
    "drafts",
    "idempotency",
    "identity",
    "inbox",
    "ledger",
    "licensing",
    "media",
    "metadata",
    "notifications",
    "orders",
    "outbox",
    "positions",
    "stores",
]
