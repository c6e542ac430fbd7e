"""What the database's roles may do is what is written down, and behind the wall no store reaches another's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from migrations.access import APP, SERVICE
from models.database import make_engine, new_id
from ops.stack.parts.postgres import CDC, OWNER
from tests.contracts.access_matrix import DEFINERS, HOW, PRIVILEGES, TABLES, WALLS, Access, Policy
from tests.local_stack import Stack, settings_for

RELATIONS = """
SELECT c.relname AS name, c.relrowsecurity AS walled, pg_get_userbyid(c.relowner) AS owner,
       ARRAY(SELECT pg_get_userbyid(grantee) || ' ' || privilege_type FROM aclexplode(c.relacl)
             UNION ALL
             SELECT pg_get_userbyid(grantee) || ' ' || privilege_type || ' of '
                    || string_agg(attname, ', ' ORDER BY attname)
             FROM pg_attribute, aclexplode(attacl) WHERE attrelid = c.oid GROUP BY grantee, privilege_type) AS grants
FROM pg_class c
WHERE relnamespace = 'public'::regnamespace
  AND (relkind IN ('r', 'p', 'v', 'm') OR relkind = 'S' AND relacl IS NOT NULL) AND relname !~ '^outbox_archive_[0-9]+$'
"""
POLICIES = """
SELECT polrelid::regclass::text AS table, polname AS name, polcmd::text AS command, polpermissive AS permissive,
       ARRAY(SELECT pg_get_userbyid(role) FROM unnest(polroles) role) AS roles,
       pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS check
FROM pg_policy
"""
FUNCTIONS = """
SELECT proname AS name, 'search_path=public, pg_temp' = ANY (proconfig) AS pinned,
       prorettype = 'trigger'::regtype AS trigger,
       ARRAY(SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END
             FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))) AS callers
FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace
"""
ROLES = """
SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb AS strong,
       ARRAY(SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE member = r.oid AND inherit_option) AS inherits,
       ARRAY(SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE member = r.oid AND set_option) AS becomes
FROM pg_roles r WHERE rolname = ANY (:names)
"""
COLUMNS = """
SELECT attname AS name, format_type(atttypid, NULL) AS type, attnotnull AND NOT atthasdef AND attidentity = '' AS needed
FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
CHECKS = "SELECT conname FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND contype = 'c'"
COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
ANY_VALUE: Mapping[str, Any] = {
    "boolean": True,
    "date": "2027-01-01",
    "timestamp with time zone": "2027-01-01T00:00:00Z",
    "jsonb": {},
    "json": {},
    "bytea": "\\x00",
}
WALLED = [name for name, access in TABLES.items() if access.wall is not None and access.app]
OURS = dict.fromkeys(("stores", "users", "subscriptions"), "unique constraint")  #: each is there once


@asynccontextmanager
async def as_owner(stack: Stack) -> AsyncIterator[AsyncConnection]:
    """A transaction of the owner's that is rolled back."""
    engine = make_engine(settings_for(stack).sqlalchemy_url, pool_size=1, application="test")
    try:
        async with engine.connect() as tx:
            yield tx
    finally:
        await engine.dispose()


async def found(stack: Stack) -> dict[str, Access]:
    """TABLES, as Postgres has it; the walls without their columns."""
    async with as_owner(stack) as tx:
        policies: dict[str, dict[str, Policy]] = {}
        for row in await tx.execute(text(POLICIES)):
            assert row.permissive, f"{row.table}.{row.name}"
            policies.setdefault(row.table, {})[row.name] = policy_of(row)
        relations = (await tx.execute(text(RELATIONS))).all()
    assert [row.name for row in relations if row.owner != OWNER] == []
    return {
        row.name: Access(
            initials(row.grants, APP), initials(row.grants, SERVICE), policies.get(row.name, {}) if row.walled else None
        )
        for row in relations
    }


def policy_of(row: Any) -> Policy:
    return Policy(" ".join(row.roles), COMMANDS[row.command], plain(row.using), plain(row.check))


def plain(expression: str | None) -> str | None:
    """As Policy has it: one line, and :store and :user."""
    if expression is None:
        return None
    for name in ("store", "user"):
        printed = f"(NULLIF(current_setting('packstream.{name}_id'::text, true), ''::text))::uuid"
        expression = expression.replace(printed, f":{name}")
    return " ".join(expression.split())


def initials(grants: list[str], role: str) -> str:
    """A role's privileges in the order of PRIVILEGES; any other, and those on columns, in words."""
    held = [grant.removeprefix(f"{role} ") for grant in grants if grant.startswith(f"{role} ")]
    known = "".join(short for short, name in PRIVILEGES.items() if name in held)
    return known + "".join(sorted(f" {name}" for name in held if name not in PRIVILEGES.values()))


def differences(has: Mapping[str, Access]) -> Iterator[str]:
    wanted = {
        name: access._replace(wall=None if access.wall is None else dict(access.wall.policies))
        for name, access in TABLES.items()
    }
    for name in sorted(has.keys() | wanted.keys()):
        if has.get(name) != wanted.get(name):
            yield f"{line_of(name, has[name]) if name in has else f'no {name}'}  # written down: {wanted.get(name)}"


def line_of(name: str, access: Access) -> str:
    """The line of TABLES."""
    wall = access.wall and next((known for known, one in WALLS.items() if one.policies == access.wall), access.wall)
    return f'    "{name}": Access("{access.app}", "{access.service}"{f", {wall}" if wall else ""}),'


async def test_grants_and_policies_of_every_table_are_those_written_down(stack: Stack) -> None:
    lines = list(differences(await found(stack)))
    assert not lines, HOW.format(lines="\n".join(lines))


async def test_nobody_but_the_two_roles_is_given_anything(stack: Stack) -> None:
    async with as_owner(stack) as tx:
        grants = {
            f"{row.name}: {grant}"
            for row in await tx.execute(text(RELATIONS))
            for grant in row.grants
            if grant.split()[0] not in (OWNER, APP, SERVICE)
        }
    assert grants == set()


async def test_functions_with_their_owners_rights_are_those_written_down_on_a_path_of_their_own(stack: Stack) -> None:
    async with as_owner(stack) as tx:
        functions = (await tx.execute(text(FUNCTIONS))).all()
    assert [function.name for function in functions if not function.pinned] == []
    has = {
        function.name: tuple(sorted(set(function.callers) - {OWNER}))
        for function in functions
        if not function.trigger  # nobody calls it
    }
    assert has == dict(DEFINERS), HOW.format(lines=has)


async def test_the_roles_are_weak_and_the_api_is_the_service_only_when_it_says_so(stack: Stack) -> None:
    async with as_owner(stack) as tx:
        roles = {row.rolname: row for row in await tx.execute(text(ROLES), {"names": [APP, SERVICE, CDC]})}
    assert [name for name, role in roles.items() if role.strong or role.inherits] == []
    assert {name: role.becomes for name, role in roles.items()} == {APP: [SERVICE], SERVICE: [], CDC: []}


class Party(NamedTuple):
    """Someone for whom a transaction is."""

    store: UUID
    another: UUID
    user: UUID


class Sides(NamedTuple):
    """A transaction of the API's role for us, in a table with a row of ours and one of theirs."""

    tx: AsyncConnection
    us: Party
    them: Party
    theirs: str  #: SQL: whether a row is theirs


@asynccontextmanager
async def sides(stack: Stack, table: str) -> AsyncIterator[Sides]:
    us, them = (Party(new_id(), new_id(), new_id()) for _ in range(2))
    async with as_owner(stack) as tx:
        await tx.execute(text("SET LOCAL session_replication_role = replica"))  # no foreign keys, no triggers
        for name in (await tx.scalars(text(CHECKS), {"table": table})).all():
            await tx.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"'))
        for party in (us, them):
            await tx.execute(*await insertion(tx, table, party))
        await become(tx, us)
        yield Sides(tx, us, them, " AND ".join(f"{name}::text = '{value}'" for name, value in marks(table, them)))


def marks(table: str, party: Party) -> list[tuple[str, str]]:
    """The columns that say that a row is the party's."""
    wall = TABLES[table].wall
    assert wall is not None
    return [(name, str(getattr(party, whose))) for name, whose in wall.columns.items()]


async def insertion(tx: AsyncConnection, table: str, party: Party) -> tuple[TextClause, dict[str, str]]:
    """The statement that inserts a row of the party's, with any values else, and its parameters."""
    columns = (await tx.execute(text(COLUMNS), {"table": table})).all()
    row = {column.name: any_value(column.type) for column in columns if column.needed} | dict(marks(table, party))
    names = ", ".join(f'"{name}"' for name in row)
    source = f"jsonb_populate_record(NULL::{table}, CAST(:row AS jsonb))"
    statement = f"INSERT INTO {table} ({names}) SELECT {names} FROM {source}"
    return text(statement), {"row": orjson.dumps(row).decode()}


def any_value(kind: str) -> Any:
    """A value of a column of this type, as JSON has it."""
    if kind in ("uuid", "text"):
        return str(new_id())
    return ANY_VALUE.get(kind, [] if kind.endswith("[]") else 1)


async def become(tx: AsyncConnection, party: Party) -> None:
    """Act for the party as the API's role."""
    for name, value in (("store", party.store), ("user", party.user)):
        await tx.execute(text(f"SELECT set_config('packstream.{name}_id', :value, true)"), {"value": str(value)})
    await tx.execute(text(f"SET LOCAL ROLE {APP}"))


async def outcome(tx: AsyncConnection, statement: str | TextClause, values: Mapping[str, Any] | None = None) -> str:
    """How many rows a statement is about, or why Postgres refuses it."""
    try:
        async with tx.begin_nested():
            done = await tx.execute(text(statement) if isinstance(statement, str) else statement, values or {})
            return f"{done.rowcount} rows"
    except DBAPIError as exc:
        return str(exc.orig)


def is_as_it_should(answer: str, expected: str, *, privilege: str, table: str) -> bool:
    """Without the privilege the answer is another."""
    return (expected if privilege in TABLES[table].app.partition(" ")[0] else "permission denied") in answer


@pytest.mark.parametrize("table", WALLED)
async def test_no_row_of_another_store_is_read_counted_changed_or_deleted(stack: Stack, table: str) -> None:
    async with sides(stack, table) as (tx, _, them, theirs):
        column = marks(table, them)[0][0]
        for privilege, statement in (
            ("S", f"SELECT 1 FROM {table} WHERE {theirs}"),
            ("U", f"UPDATE {table} SET {column} = {column} WHERE {theirs}"),
            ("D", f"DELETE FROM {table} WHERE {theirs}"),
        ):
            answer = await outcome(tx, statement)
            assert is_as_it_should(answer, "0 rows", privilege=privilege, table=table), f"{statement}: {answer}"
        assert await tx.scalar(text(f"SELECT count(*) FROM {table}")) == 1
        await become(tx, them)
        assert await outcome(tx, f"SELECT 1 FROM {table} WHERE {theirs}") == "1 rows"


@pytest.mark.parametrize("table", WALLED)
async def test_no_row_is_made_for_another_store_or_moved_to_it(stack: Stack, table: str) -> None:
    async with sides(stack, table) as (tx, us, them, _):
        answer = await outcome(tx, *await insertion(tx, table, them))
        assert is_as_it_should(answer, "row-level security", privilege="I", table=table), answer
        moved = ", ".join(f"{name} = '{value}'" for name, value in marks(table, them))
        answer = await outcome(tx, f"UPDATE {table} SET {moved}")
        assert is_as_it_should(answer, "row-level security", privilege="U", table=table), answer
        answer = await outcome(tx, *await insertion(tx, table, us))
        assert is_as_it_should(answer, OURS.get(table, "1 rows"), privilege="I", table=table), answer


@pytest.mark.parametrize("table", WALLED)
async def test_who_acts_for_nobody_sees_nothing(stack: Stack, table: str) -> None:
    async with sides(stack, table) as (tx, *_):
        await tx.execute(
            text("SELECT set_config('packstream.store_id', '', true), set_config('packstream.user_id', '', true)")
        )
        assert await tx.scalar(text(f"SELECT count(*) FROM {table}")) == 0
