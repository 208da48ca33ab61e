"""A YAML file as plain values plus the position of every key and value.

Stricter than YAML on purpose, because these files are approved by people who read them in a diff: no duplicate
keys, no anchors or aliases, no tags, one document, at most 256 KiB, UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlp_ci.errors import Problem, SpecError
from mlp_ci.spec.quantities import hidden

SIZE_LIMIT = 256 * 1024
DEPTH_LIMIT = 50
PLAIN_TAGS = {"null", "bool", "int", "float", "str", "timestamp"}
CONFLICT = re.compile(r"^(<{7} |={7}$|>{7} |\|{7} )")

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Mark:
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass
class Document:
    """The values of one file. ``keys`` and ``values`` give the mark of the key or value at a path."""

    file: str
    lines: list[str]
    value: Any = None
    keys: dict[Path_, Mark] = field(default_factory=dict)
    values: dict[Path_, Mark] = field(default_factory=dict)

    def excerpt(self, line: int) -> str:
        return self.lines[line - 1].rstrip() if 0 < line <= len(self.lines) else ""

    def problem(self, what: str, mark: Mark, fix: str = "") -> Problem:
        return Problem(
            what=what,
            file=self.file,
            line=mark.line,
            column=mark.column,
            excerpt=self.excerpt(mark.line),
            fix=fix,
        )

    def start(self, path: Path_) -> Mark:
        """Where a person looks for ``path``: at a value on the key's own line, else at the key."""
        key, value = self.nearest(path, key=True), self.nearest(path, key=False)
        return value if value.line == key.line else key

    def nearest(self, path: Path_, *, key: bool) -> Mark:
        """The mark of ``path``, or of its closest parent that stands in the file."""
        while True:
            table = self.keys if key else self.values
            found = table.get(path) or self.keys.get(path) or self.values.get(path)
            if found:
                return found
            if not path:
                return Mark(1, 1)
            path, key = path[:-1], True


FLATTER = "the files of mlp-ci nest at most a few levels: close the brackets, or indent less"
MISSING = "run `mlp-ci init` to start a model repository, or pass its folder with --path"


def read_document(path: Path, *, shown_as: str | None = None, missing: str = MISSING) -> Document:
    """Read and parse ``path``; raises SpecError with every problem of the file's form.

    ``missing`` is the cure for a file that is not there.
    """
    name = shown_as or str(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise SpecError([Problem(what="the file does not exist", file=name, fix=missing)]) from error
    except OSError as error:
        fix = "put a file there that this user may read"
        raise SpecError([Problem(what=f"the file cannot be read: {error.strerror}", file=name, fix=fix)]) from error
    return parse_document(raw, name)


def parse_document(raw: bytes, name: str) -> Document:
    """Parse the bytes of a file that is called ``name`` in messages."""
    if len(raw) > SIZE_LIMIT:
        what = f"the file has {len(raw):,} bytes; at most {SIZE_LIMIT:,} are read"
        raise SpecError([Problem(what=what, file=name)])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecError(
            [Problem(what="the file is not UTF-8", file=name, line=line, fix="save it as UTF-8")]
        ) from error
    document = Document(file=name, lines=text.splitlines())
    _refuse_hidden(document, text)
    _refuse_conflicts(document)
    node = _compose(document, text)
    problems: list[Problem] = []
    if node is not None:
        document.value = _build(document, node, (), problems)
    if problems:
        raise SpecError(problems)
    return document


def _refuse_hidden(document: Document, text: str) -> None:
    """Characters that no reviewer sees, and that can show a line in another order than it is read in.

    See Boucher and Anderson, Trojan Source, 2021.
    """
    for at, character in enumerate(text):
        if hidden(character):
            before = text[:at].split("\n")
            mark = Mark(len(before), len(before[-1]) + 1)
            what = f"the character U+{ord(character):04X} is not allowed: a reviewer cannot see it"
            raise SpecError([document.problem(what, mark, "delete it, or write the line anew")])


def _refuse_conflicts(document: Document) -> None:
    marked = [i for i, line in enumerate(document.lines, 1) if CONFLICT.match(line)]
    if marked:
        what = "a merge conflict is left in the file"
        fix = "keep one side, delete the <<<<<<<, ======= and >>>>>>> lines, then `git add` the file"
        raise SpecError([document.problem(what, Mark(line, 1), fix) for line in marked[:1]])


def _compose(document: Document, text: str) -> yaml.Node | None:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_LIMIT + 1:  # said here already: the parser takes minutes for a page of brackets
                at = event.start_mark
                mark = Mark(at.line + 1, at.column + 1) if at else Mark(1, 1)
                raise SpecError([document.problem(f"nested deeper than {DEPTH_LIMIT} levels", mark, FLATTER)])
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                at = event.start_mark
                mark = Mark(at.line + 1, at.column + 1) if at else Mark(1, 1)
                what = "anchors and aliases are not allowed: a reviewer must see the value where it counts"
                raise SpecError([document.problem(what, mark, "write the value out")])
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(at.line + 1, at.column + 1) if at else Mark(1, 1)
        what = f"not valid YAML: {error.problem or error.context}"
        raise SpecError([document.problem(what, mark, _yaml_hint(document, mark))]) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        mark = Mark(len(before), len(before[-1]) + 1)
        what = f"the character U+{error.character:04X} is not allowed in YAML"
        raise SpecError([document.problem(what, mark, "delete it: most editors do not show it")]) from error
    except yaml.YAMLError as error:
        fix = "check the file with a YAML editor"
        raise SpecError([Problem(what=f"not valid YAML: {error}", file=document.file, fix=fix)]) from error
    except RecursionError as error:
        what = "the file is nested too deeply"
        raise SpecError([Problem(what=what, file=document.file, fix=FLATTER)]) from error


def _yaml_hint(document: Document, mark: Mark) -> str:
    line = document.excerpt(mark.line)
    if "\t" in line:
        return "YAML does not allow tabs for indentation; use spaces"
    if re.search(r":\s*[@`%]", line):
        return "put the value in quotes; @, ` and % cannot start a plain value"
    if line.count(":") > 1:
        return "put the value in quotes if it holds a colon followed by a space"
    return "check the indentation of this line and the one before"


def _build(document: Document, node: yaml.Node, path: Path_, problems: list[Problem]) -> Any:
    mark = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
    document.values[path] = mark
    if len(path) > DEPTH_LIMIT:
        problems.append(document.problem(f"nested deeper than {DEPTH_LIMIT} levels", mark, FLATTER))
        return None
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(document, node, path, problems)
    if isinstance(node, yaml.SequenceNode):
        return [_build(document, child, (*path, i), problems) for i, child in enumerate(node.value)]
    if node.tag.removeprefix("tag:yaml.org,2002:") not in PLAIN_TAGS:
        problems.append(document.problem(f"the tag {node.tag} is not allowed", mark, "remove the tag"))
        return None
    return _scalar(document, node, mark, problems)


def _build_mapping(document: Document, node: yaml.MappingNode, path: Path_, problems: list[Problem]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key_node, value_node in node.value:
        mark = Mark(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        key = _scalar(document, key_node, mark, problems) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, Hashable) or key is None:
            problems.append(document.problem("a key must be a plain word", mark))
            continue
        name = key_node.value if not isinstance(key, str) else key
        if name in built:
            first = document.keys[(*path, name)].line
            what = f"the key {name!r} stands twice; the first is on line {first}"
            problems.append(document.problem(what, mark, "keep one of the two"))
            continue
        document.keys[(*path, name)] = mark
        built[name] = _build(document, value_node, (*path, name), problems)
    return built


def _scalar(document: Document, node: yaml.Node, mark: Mark, problems: list[Problem]) -> Any:
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError, IndexError) as error:
        problems.append(document.problem(f"the value cannot be read: {error}", mark))
        return None
