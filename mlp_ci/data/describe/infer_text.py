"""A suggestion as YAML with comments, and its place in an existing ``model.yaml``: found and replaced by line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.printable import in_one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.data.describe.infer import Line, Suggestion

WIDTH = 120
# What the data cannot tell, and a person once wrote: it is kept.
KEPT = ("mean", "quantiles", "references", "severity", "sensitive", "monitor")
# Every comment of ours counts rows; so it can be told from a person's.
_OURS = re.compile(r"(?:^|; )(?:(?!; ).)*?\bin [\d,]+ (?:sampled )?rows?\b.*$|^not described here: .*$")
_PLAIN_KEY = re.compile(r"[A-Za-z_](?:[\w .-]*\w)?", re.ASCII)


def scalar(value: Any) -> str:
    """One value (or list, or mapping) as YAML on one line, for use inside a flow mapping."""
    import yaml

    text = yaml.safe_dump(
        _plain(value), default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False, explicit_end=False
    )
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")


def key_text(name: str) -> str:
    """A name as the key of a block mapping: plain where it reads as itself, else in quotes."""
    import yaml

    if _PLAIN_KEY.fullmatch(name) and yaml.safe_load(name) == name:
        return name
    return yaml.safe_dump(name, default_style='"', width=10**9, allow_unicode=True).rstrip("\n")


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def flow(fields: Mapping[str, Any]) -> str:
    """The right side of a column's line; a check with a single value is that value."""
    if list(fields) == [""]:
        return scalar([fields[""]])[1:-1]
    return scalar(dict(fields))


def lines_of(line: Line, indent: str, own: str = "") -> list[str]:
    """One line of the block, the comment behind it where it fits, else above; ``own`` is a person's comment, first."""
    comment = "; ".join(filter(None, [own, line.comment]))
    if line.left_out:
        return [f"{indent}# {in_one_line(line.name)}: {comment}"]
    text = f"{indent}{'# ' if line.guess else ''}{key_text(line.name)}: {flow(line.fields)}"
    if not comment:
        return [text]
    return [f"{text} # {comment}"] if len(f"{text} # {comment}") <= WIDTH else [f"{indent}# {comment}", text]


def document(suggestion: Suggestion, shown_as: str) -> str:
    """The whole ``data:`` section as far as a file can tell it, to read, correct and paste."""
    of = "the" if suggestion.of_all else "a sample of"
    lines = [
        f"# Written by `mlp-ci data infer` from {of} {suggestion.rows:,} rows of {in_one_line(shown_as)}.",
        "# The numbers say what was; what may be, you know: read every line.",
        "data:",
    ]
    guesses = (("key", scalar(list(suggestion.key)) if suggestion.key else ""), ("time", suggestion.time))
    for name, value in (*guesses, ("target", suggestion.target)):
        if value:
            shown = value if name == "key" else key_text(value)
            lines.append(f"  # {name}: {shown} # a guess")
    lines.append("  columns:" if any(not c.left_out for c in suggestion.columns) else "  columns: {}")
    for column in suggestion.columns:
        lines += lines_of(column, "    ")
    if suggestion.checks:
        lines.append("  checks:")
    for check in suggestion.checks:
        lines += lines_of(check, "    ")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- editing


@dataclass(frozen=True)
class Edited:
    """The new text, the columns renewed, and those of the file that the block does not name and so stay out."""

    text: str
    renewed: tuple[str, ...]
    not_named: tuple[str, ...]
    checks_added: bool


def edit(text: str, suggestion: Suggestion) -> Edited:
    """``text`` of a model.yaml with its ``data.columns`` renewed, or added where there is none.

    Where the block names columns, only these are renewed: what a model reads is for people to say, so the others
    follow as comments. A person's comments stay, also those behind a line. Raises InputError where ``data`` is not
    written as a block.
    """
    import yaml

    newline = "\r\n" if "\r\n" in text else "\n"
    rows = text.splitlines()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    data = _child(root, "data")
    if not isinstance(data, yaml.MappingNode) or data.flow_style or not data.value:
        msg = "model.yaml has no section `data` that is written as a block"
        raise InputError(msg, fix="write `data:` on a line of its own, and train, test and target indented below it")
    indent = " " * data.start_mark.column
    columns = _pair(data, "columns")
    place = _Place(rows, columns, indent) if columns else None
    named = place.named if place else {}
    new = list(suggestion.columns)
    written: list[str] = []
    for line in new:
        if named and line.name not in named:
            continue
        own = named.get(line.name)
        written += own.above if own else []
        fields = {**line.fields, **(own.kept if own else {})} if line.fields else line.fields
        written += lines_of(_with(line, fields), indent + "  ", own.behind if own else "")
    there = {line.name for line in new}
    for name, own in named.items():
        written += own.lines if name not in there else []
    left = [line for line in new if named and line.name not in named]
    for line in left:
        what = f"{key_text(line.name)}: {flow(line.fields)}; " if line.fields else f"{in_one_line(line.name)}: "
        written.append(f"{indent}  # not described here: {what}{line.comment}")
    has_columns = any(not row.lstrip().startswith("#") for row in written)
    block = [f"{indent}columns:{'' if has_columns else ' {}'}{place.said if place else ''}", *written]
    add_checks = _pair(data, "checks") is None
    if add_checks and suggestion.checks:
        block.append(f"{indent}checks:")
        for check in suggestion.checks:
            block += lines_of(check, indent + "  ")
    first, after = (place.first, place.after) if place else (_last_row(data) + 1,) * 2
    text = newline.join([*rows[:first], *block, *rows[after:]]) + newline
    renewed = tuple(line.name for line in new if not named or line.name in named)
    return Edited(text, renewed, tuple(line.name for line in left), add_checks)


@dataclass(frozen=True)
class _Own:
    """What a person wrote about a column: fields that the data cannot tell, comments above and behind."""

    kept: Mapping[str, Any]
    above: Sequence[str]
    behind: str
    lines: Sequence[str]


class _Place:
    """Where the block lies (rows first … after - 1), and what in it is a person's."""

    def __init__(self, rows: list[str], pair: tuple[Any, Any], indent: str) -> None:
        import yaml

        key, value = pair
        self.rows = rows
        self.first = key.start_mark.line
        self.after = max(_last_row(value), self.first) + 1
        self.named: dict[str, _Own] = {}
        begun = rows[self.first][key.end_mark.column + 1 :].strip()
        self.said = f" {begun}" if begun.startswith("#") else ""
        if isinstance(value, yaml.MappingNode):
            self._read(value)
        # Comments of ours at the end of the block.
        while self.after < len(rows) and rows[self.after].startswith(f"{indent} ") and self._ours(rows[self.after]):
            self.after += 1

    def _read(self, value: Any) -> None:
        from mlp_ci.spec.document import parse_document

        above_from = self.first + 1
        parsed = parse_document("\n".join(self.rows).encode(), "model.yaml").value["data"]["columns"]
        for key, node in value.value:
            start, end = key.start_mark.line, _last_row(node)
            block = not value.flow_style
            behind = (
                self.rows[node.end_mark.line][node.end_mark.column :] if block and node.end_mark.line == end else ""
            )
            above, said = self._comments(self.rows[above_from:start] if block else [], behind.strip())
            described = parsed.get(key.value)
            kept = {k: described[k] for k in KEPT if k in described} if isinstance(described, dict) else {}
            lines = [*above, *self.rows[start : end + 1]] if block else []
            self.named[key.value] = _Own(kept, above, said, lines)
            above_from = end + 1

    @staticmethod
    def _ours(row: str) -> bool:
        return row.strip().startswith("#") and _OURS.search(row.strip().removeprefix("#").strip()) is not None

    @classmethod
    def _comments(cls, above: list[str], behind: str) -> tuple[list[str], str]:
        """The comments above a column that a person wrote, and the one behind it, without what we added to them."""
        # Where both do not fit on one line, a person's comment behind the line was put above it together with ours.
        moved = [row.strip() for row in above if cls._ours(row)]
        said = [_OURS.sub("", c.removeprefix("#").strip()) for c in (*moved, behind) if c.startswith("#")]
        return [row for row in above if row.strip() and not cls._ours(row)], "; ".join(filter(None, said))


def _with(line: Line, fields: Mapping[str, Any]) -> Line:
    from dataclasses import replace

    return replace(line, fields=fields)


def _child(node: Any, name: str) -> Any:
    pair = _pair(node, name)
    return pair[1] if pair else None


def _pair(node: Any, name: str) -> tuple[Any, Any] | None:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return None
    return next(((k, v) for k, v in node.value if k.value == name), None)


def _last_row(node: Any) -> int:
    """The row on which a value ends; a block's own end is where the next thing begins, so its last part counts."""
    import yaml

    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return max(_last_row(last[1]), last[0].end_mark.line) if isinstance(last, tuple) else _last_row(last)
    end = node.end_mark
    return int(end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line)
