"""How a frozen dataclass is a table: its columns come from its fields."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

Json: TypeAlias = Any


@dataclass(frozen=True)
class Record:
    """A row. ``KEYS`` are table constraints, ``INDEXES`` column lists to index."""

    TABLE: ClassVar[str]
    KEYS: ClassVar[tuple[str, ...]] = ()
    INDEXES: ClassVar[tuple[str, ...]] = ()
    id: int


def ddl() -> str:
    """The SQLite schema of all records."""
    statements = []
    for kind in Record.__subclasses__():
        columns = ["id INTEGER PRIMARY KEY AUTOINCREMENT"]
        for field in fields(kind)[1:]:
            base, _, null = str(field.type).partition(" | ")
            sort = "INTEGER" if base in ("int", "bool") else "TEXT"
            columns.append(f"{field.name} {sort}{'' if null else ' NOT NULL'}")
        statements.append(f"CREATE TABLE IF NOT EXISTS {kind.TABLE} ({', '.join([*columns, *kind.KEYS])});")
        for number, index in enumerate(kind.INDEXES):
            name = f"{kind.TABLE}_{number}"
            statements.append(f"CREATE INDEX IF NOT EXISTS {name} ON {kind.TABLE} ({index});")
    return "\n".join(statements)
