"""Who may do what with a new table: grants for both roles, row-level security, policies. For migrations alone.

``packstream_app`` is the API's role while a request acts for a store: it sees what a policy shows it.
``packstream_service`` acts for no store (sign-in, serve, admins, agents). Roles belong to the server, not to the
database: where one does not exist, its statements are left out. What each may do is written down, and tested, in
``tests/contracts/access_matrix.py``: a new table needs its line there.
"""

from __future__ import annotations

from typing import Final

from alembic import op

APP: Final = "packstream_app"
SERVICE: Final = "packstream_service"
#: What a transaction says of its caller (models/tenancy.py); null where it says nothing, and null equals nothing.
STORE: Final = "NULLIF(current_setting('packstream.store_id', true), '')::uuid"
USER: Final = "NULLIF(current_setting('packstream.user_id', true), '')::uuid"


def when_there(role: str, statement: str) -> None:
    """Execute the statement where the role exists."""
    quoted = statement.replace("'", "''")
    op.execute(
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN EXECUTE '{quoted}'; END IF; END $$"
    )


def grant(privileges: str, on: str, *, roles: tuple[str, ...] = (APP, SERVICE)) -> None:
    """The privileges on a table (``orders``), sequence or function (``FUNCTION f(uuid)``) to the roles.

    A function has to be revoked from PUBLIC before: Postgres gives it to everybody.
    """
    for role in roles:
        when_there(role, f"GRANT {privileges} ON {on} TO {role}")


def tenant_table(
    name: str, condition: str, privileges: str, *, writable: str | None = None, service_privileges: str | None = None
) -> None:
    """A table whose rows belong to stores: the app role has `privileges` on the rows of `condition` alone.

    `condition` is SQL over the row, mostly ``f"store_id = {STORE}"``; `writable`, where it differs, says what may be
    written. The service role has `service_privileges` (else the same) on all rows.
    """
    grant(privileges, name, roles=(APP,))
    grant(service_privileges or privileges, name, roles=(SERVICE,))
    op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    when_there(APP, f"CREATE POLICY tenant ON {name} TO {APP} USING ({condition}) WITH CHECK ({writable or condition})")
    _service_sees_all(name)


def service_table(name: str, privileges: str) -> None:
    """A table that no store has a part in: the service role has `privileges`, the app role none, and RLS is on."""
    grant(privileges, name, roles=(SERVICE,))
    op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    _service_sees_all(name)


def _service_sees_all(name: str) -> None:
    when_there(SERVICE, f"CREATE POLICY service ON {name} TO {SERVICE} USING (true) WITH CHECK (true)")
