"""the catalogue: products, inventory, promos"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ROLES = ("packstream_app", "packstream_service")
GRANTED = {
    "products": "SELECT, INSERT, UPDATE",
    "inventory": "SELECT, INSERT, UPDATE",
    "promos": "SELECT, INSERT, UPDATE",
}
STORE = "NULLIF(current_setting('packstream.store_id', true), '')::uuid"
STATE = f"(SELECT state FROM stores WHERE id = {STORE})"
SHOWN = f"active AND deleted_at IS NULL AND store_id = ANY (ARRAY(SELECT selling_vendors({STATE})))"
LISTED = sa.text("active AND deleted_at IS NULL")
THERE = sa.text("deleted_at IS NULL")
DEFINER = "SECURITY DEFINER SET search_path = public, pg_temp"

# Who may sell is said here, once: the shop, quotes, ads and the policy below all ask these two.
MAY_SELL = """
CREATE FUNCTION store_may_sell(kyc_status text, subscription_active boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT kyc_status = 'verified' AND subscription_active $$
"""
SELLING = f"""
CREATE FUNCTION selling_vendors(in_state text) RETURNS SETOF uuid LANGUAGE sql STABLE {DEFINER} AS $$
  SELECT id FROM stores
  WHERE type = 'vendor' AND state = in_state AND store_may_sell(kyc_status, subscription_active)
$$
"""
# What a buyer's transaction may learn of other stores' products, stock and promos: by id or by code, never a list.
FOR_QUOTE = f"""
CREATE FUNCTION products_for_quote(product_ids uuid[])
RETURNS TABLE (
  id uuid, store_id uuid, title text, category text, unit text, price_cents bigint, moq bigint, max_qty bigint,
  volume_discounts jsonb, active boolean, deleted boolean, vendor_may_sell boolean, vendor_state text,
  available_qty bigint
) LANGUAGE sql STABLE {DEFINER} AS $$
  SELECT p.id, p.store_id, p.title, p.category, p.unit, p.price_cents, p.moq, p.max_qty, p.volume_discounts, p.active,
         p.deleted_at IS NOT NULL, store_may_sell(s.kyc_status, s.subscription_active), s.state, i.on_hand - i.reserved
  FROM products p JOIN stores s ON s.id = p.store_id JOIN inventory i ON i.product_id = p.id
  WHERE p.id = ANY (product_ids)
$$
"""
PROMOS = f"""
CREATE FUNCTION promos_by_code(store_ids uuid[], codes_folded text[]) RETURNS SETOF promos LANGUAGE sql STABLE
{DEFINER} AS $$
  SELECT p.* FROM unnest(store_ids, codes_folded) AS wanted(store_id, code)
  JOIN promos p ON p.store_id = wanted.store_id AND p.code_folded = wanted.code AND p.deleted_at IS NULL
$$
"""
AVAILABLE = f"""
CREATE FUNCTION available_qty(product_ids uuid[]) RETURNS TABLE (product_id uuid, available bigint) LANGUAGE sql STABLE
{DEFINER} AS $$
  SELECT i.product_id, i.on_hand - i.reserved FROM inventory i WHERE i.product_id = ANY (product_ids)
$$
"""
# {name} moves stock of all products that {fits} for, and returns the others. Rows are locked in primary-key order, in a
# statement of its own: the next one sees what whoever held them before has left.
MOVE = """
CREATE FUNCTION {name}(product_ids uuid[], quantities bigint[]) RETURNS SETOF uuid LANGUAGE plpgsql VOLATILE {definer}
AS $$
BEGIN
  IF cardinality(product_ids) <> cardinality(quantities) OR NOT 0 < ALL (quantities)
     OR array_position(quantities, NULL) IS NOT NULL THEN
    RAISE EXCEPTION '{name} needs one quantity above zero for each product' USING ERRCODE = '22023';
  END IF;
  PERFORM FROM inventory i WHERE i.product_id = ANY (product_ids) ORDER BY i.product_id FOR UPDATE;
  RETURN QUERY
    WITH demand AS (
      SELECT wanted.id, sum(wanted.quantity)::bigint AS quantity FROM unnest(product_ids, quantities)
      AS wanted(id, quantity) GROUP BY wanted.id
    ), moved AS (
      UPDATE inventory i SET {change} FROM demand d WHERE i.product_id = d.id AND {fits} RETURNING i.product_id
    )
    SELECT d.id FROM demand d WHERE NOT EXISTS (SELECT FROM moved m WHERE m.product_id = d.id) ORDER BY d.id;
END $$
"""
MOVES = (
    ("reserve_stock", "reserved = i.reserved + d.quantity", "d.quantity <= i.on_hand - i.reserved"),
    ("release_stock", "reserved = i.reserved - d.quantity", "d.quantity <= i.reserved"),
    (
        "take_stock",
        "on_hand = i.on_hand - d.quantity, reserved = i.reserved - d.quantity",
        "d.quantity <= i.reserved",
    ),
)
FUNCTIONS = (
    "selling_vendors(text)",
    "products_for_quote(uuid[])",
    "promos_by_code(uuid[], text[])",
    "available_qty(uuid[])",
    "reserve_stock(uuid[], bigint[])",
    "release_stock(uuid[], bigint[])",
    "take_stock(uuid[], bigint[])",
)
# An ad of a product is served while the product is on sale: serve's memory follows.
BUMP = """
CREATE FUNCTION bump_ad_catalog_of_product() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE ad_catalog_version SET version = version + 1
  WHERE id = 1 AND EXISTS (SELECT FROM ads WHERE target_product_id = NEW.id AND status = 'active');
  RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER products_bump_catalog AFTER UPDATE OF active, deleted_at ON products FOR EACH ROW
WHEN ((OLD.active AND OLD.deleted_at IS NULL) IS DISTINCT FROM (NEW.active AND NEW.deleted_at IS NULL))
EXECUTE FUNCTION bump_ad_catalog_of_product()
"""


def when_there(role: str, statement: str) -> str:
    """The statement, where the role exists: roles belong to the server, not to the database."""
    quoted = statement.replace("'", "''")
    return (
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN EXECUTE '{quoted}'; END IF; END $$"
    )


def upgrade() -> None:
    _products()
    _inventory()
    _promos()
    op.create_index(
        "ix_ads_target_product_id",
        "ads",
        ["target_product_id"],
        postgresql_where=sa.text("target_product_id IS NOT NULL"),
    )
    for function in (MAY_SELL, SELLING, FOR_QUOTE, PROMOS, AVAILABLE, BUMP):
        op.execute(function)
    for name, change, fits in MOVES:
        op.execute(MOVE.format(name=name, change=change, fits=fits, definer=DEFINER))
    op.execute(TRIGGER)
    _access()


def _products() -> None:
    op.create_table(
        "products",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("price_cents", sa.BigInteger(), nullable=False, comment="the list price of one unit"),
        sa.Column("moq", sa.BigInteger(), nullable=False, comment="smallest quantity of an order"),
        sa.Column("max_qty", sa.BigInteger(), nullable=True, comment="largest quantity of an order"),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column(
            "volume_discounts",
            postgresql.JSONB(),
            nullable=False,
            comment="[{min_qty, type, value}], by min_qty: percent in basis points, fixed_price in cents a unit",
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed(
                "setweight(to_tsvector('english', title), 'A') ||"
                " setweight(to_tsvector('english', coalesce(description, '')), 'B')",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.CheckConstraint(
            "category IN ('flower', 'preroll', 'edible', 'concentrate', 'vape', 'beverage', 'tincture', 'topical',"
            " 'seed', 'accessory')",
            name=op.f("ck_products_category"),
        ),
        sa.CheckConstraint("unit IN ('unit', 'gram', 'ounce', 'pound', 'case')", name=op.f("ck_products_unit")),
        sa.CheckConstraint("price_cents > 0", name=op.f("ck_products_price")),
        sa.CheckConstraint("moq >= 1 AND max_qty >= moq", name=op.f("ck_products_quantities")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_products_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
    )
    unique = {"unique": True, "postgresql_where": THERE}
    op.create_index("uq_products_store_id_sku", "products", ["store_id", "sku"], **unique)
    op.create_index("ix_products_of_store", "products", ["store_id", "created_at", "id"], postgresql_where=THERE)
    for name, columns in (
        ("ix_products_newest", ["created_at", "id"]),
        ("ix_products_price", ["price_cents", "id"]),
        ("ix_products_store_price", ["store_id", "price_cents", "id"]),
        ("ix_products_category_newest", ["category", "created_at", "id"]),
        ("ix_products_category_price", ["category", "price_cents", "id"]),
    ):
        op.create_index(name, "products", columns, postgresql_where=LISTED)
    op.create_index("ix_products_search", "products", ["search"], postgresql_using="gin", postgresql_where=LISTED)


def _inventory() -> None:
    op.create_table(
        "inventory",
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False, comment="the product's"),
        sa.Column("on_hand", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False, comment="by orders that were not picked up yet"),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, comment="when its vendor last set it"),
        sa.CheckConstraint("0 <= reserved AND reserved <= on_hand", name=op.f("ck_inventory_reserved")),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name=op.f("fk_inventory_product_id_products")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_inventory_store_id_stores")),
        sa.PrimaryKeyConstraint("product_id", name=op.f("pk_inventory")),
    )
    op.create_index(op.f("ix_inventory_store_id_product_id"), "inventory", ["store_id", "product_id"])


def _promos() -> None:
    op.create_table(
        "promos",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False, comment="as the vendor writes it"),
        sa.Column("code_folded", sa.Text(), nullable=False, comment="codes ignore case"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False, comment="percent in basis points, amount in cents"),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True, comment="included; null: always"),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True, comment="not included; null: never"),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("type IN ('percent', 'amount')", name=op.f("ck_promos_type")),
        sa.CheckConstraint("value > 0 AND (type <> 'percent' OR value <= 10000)", name=op.f("ck_promos_value")),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_promos_window")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_promos_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promos")),
    )
    unique = {"unique": True, "postgresql_where": THERE}
    op.create_index("uq_promos_store_id_code_folded", "promos", ["store_id", "code_folded"], **unique)
    op.create_index("ix_promos_of_store", "promos", ["store_id", "created_at", "id"], postgresql_where=THERE)


def _access() -> None:
    for function in FUNCTIONS:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
        for role in ROLES:
            op.execute(when_there(role, f"GRANT EXECUTE ON FUNCTION {function} TO {role}"))
    for table, privileges in GRANTED.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        for role, policy, condition in (
            ("packstream_app", "tenant", f"store_id = {STORE}"),
            ("packstream_service", "service", "true"),
        ):
            op.execute(when_there(role, f"GRANT {privileges} ON {table} TO {role}"))
            rule = f"CREATE POLICY {policy} ON {table} TO {role} USING ({condition}) WITH CHECK ({condition})"
            op.execute(when_there(role, rule))
    shown = f"CREATE POLICY shown ON products FOR SELECT TO packstream_app USING ({SHOWN})"
    op.execute(when_there("packstream_app", shown))


def downgrade() -> None:
    op.drop_table("inventory")
    for function in ("promos_by_code(uuid[], text[])", "products_for_quote(uuid[])"):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_table("promos")
    op.drop_table("products")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION IF EXISTS {function}")
    op.execute("DROP FUNCTION bump_ad_catalog_of_product()")
    op.execute("DROP FUNCTION store_may_sell(text, boolean)")
    op.drop_index("ix_ads_target_product_id", table_name="ads")
