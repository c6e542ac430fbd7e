"""An import-linter contract of our own: an area's tables are its own affair."""

from __future__ import annotations

import re
from typing import Any

from importlinter import Contract, ContractCheck, output

TABLES = re.compile(r"models\.(\w+)\.tables")
COLLECTED_BY = "models.metadata"
"""The one module that gathers all tables, for Alembic."""


def foreign_importers(tables: str, importers: set[str]) -> list[str]:
    """Those of ``importers`` that may not import ``models.<area>.tables``: all outside the area but one."""
    area = tables.removesuffix(".tables")
    return sorted(name for name in importers if not name.startswith(f"{area}.") and name not in (area, COLLECTED_BY))


class PrivateTables(Contract):
    """``models.<area>.tables`` is imported by ``models.<area>`` alone; others call its reads and writes."""

    def check(self, graph: Any, verbose: bool) -> ContractCheck:
        found = {
            tables: foreign_importers(tables, graph.find_modules_that_directly_import(tables))
            for tables in sorted(graph.modules)
            if TABLES.fullmatch(tables)
        }
        broken = {tables: importers for tables, importers in found.items() if importers}
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for tables, importers in check.metadata["broken"].items():
            for importer in importers:
                output.print_error(f"{importer} imports {tables}: call the area's reads or writes instead")
