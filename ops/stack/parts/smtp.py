"""The mail sink: takes every mail and keeps it as a file under DATA/mail."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from importlib.util import find_spec

from ops.stack.errors import PartMissing
from ops.stack.processes import Command
from ops.stack.units import Unit


class Smtp(Unit):
    """Mails lie in DATA/mail as .eml files, named by arrival."""

    name = "smtp"
    ports = ("SMTP_PORT",)

    @classmethod
    def addresses(cls, ports: Mapping[str, int]) -> dict[str, str]:
        return {"SMTP_URL": f"smtp://127.0.0.1:{ports['SMTP_PORT']}"}

    def check(self) -> None:
        if find_spec("aiosmtpd") is None:
            raise PartMissing("smtp: the aiosmtpd package is not installed: run `make setup`")

    def prepare(self) -> None:
        self.site.data.home("mail").mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        mail = str(self.site.data.home("mail"))
        return Command((sys.executable, "-m", "ops.stack.servers.smtp", str(self.port("SMTP_PORT")), mail))

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port("SMTP_PORT")), timeout=2) as connection:
                return connection.recv(64).startswith(b"220")
        except OSError:
            return False
