"""The warehouse's tables as schemas/warehouse/*.json describe them, and the views over them. Pure.

A table may gain columns that are not REQUIRED; nothing else of it changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parent / "warehouse"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `mode`: NULLABLE, REQUIRED or REPEATED; `fields` are a RECORD's."""

    name: str
    type: str
    mode: str
    description: str
    fields: tuple[Column, ...] = ()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Column:
        inner = tuple(cls.of(field) for field in raw.get("fields", ()))
        return cls(raw["name"], raw["type"], raw["mode"], raw["description"], inner)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: partitioned by the UTC day of the column `partition`, clustered, one row for each value of `unique`."""

    name: str
    description: str
    unique: str
    partition: str
    cluster: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def view(self) -> str:
        """The name of the view that has each row once, whatever the table has."""
        return f"{self.name}_unique"

    @property
    def duplicates(self) -> str:
        """The name of the view of rows that are there more than once: it has to be empty."""
        return f"{self.name}_duplicates"

    @classmethod
    def read(cls, path: Path) -> Table:
        raw = json.loads(path.read_text())
        columns = tuple(Column.of(field) for field in raw["fields"])
        return cls(path.stem, raw["description"], raw["unique"], raw["partition"], tuple(raw["cluster"]), columns)


TABLES: Final[Mapping[str, Table]] = {path.stem: Table.read(path) for path in sorted(DIRECTORY.glob("*.json"))}


def views(dataset: str, tables: Iterable[Table] = TABLES.values()) -> dict[str, str]:
    """The queries of the tables' views by name; `dataset` is written ``project.dataset``."""
    found = {}
    for table in tables:
        source, key = f"`{dataset}.{table.name}`", table.unique
        window = f"ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY ingested_at)"  # the row that was written first
        found[table.view] = f"SELECT * FROM {source} WHERE TRUE QUALIFY {window} = 1"
        found[table.duplicates] = f"SELECT {key}, COUNT(*) AS copies FROM {source} GROUP BY {key} HAVING COUNT(*) > 1"
    return found
