"""The documentation names only what exists: files, commands, options; and everything that exists has its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from markdown_it import MarkdownIt

from mlp_ci.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
COMMAND = re.compile(r"^\s*(?:\$ )?mlp-ci (.+?)(?:\s+#.*)?$", re.MULTILINE)
TOP: Any = typer.main.get_command(app)


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    targets = [
        t for t in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in t and not t.startswith("mailto")
    ]
    missing = [t for t in targets if not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    unknown = []
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    for block in (t.content for t in tokens if t.type == "fence" and t.info.strip() in ("", "bash", "sh", "console")):
        for line in COMMAND.findall(block):
            words = line.split("|")[0].split()
            command = TOP
            while words and not words[0].startswith("-") and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            if command is TOP and words and not words[0].startswith("-"):
                unknown.append(line)
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
            unknown += [f"{line}: {w}" for w in words if re.match(r"--[a-z]", w) and w.split("=")[0] not in options]
    assert not unknown


def test_every_command_action_template_and_file_has_its_page() -> None:
    reference = ROOT / "docs/reference"
    cli = (reference / "cli.md").read_text(encoding="utf-8")
    assert not [name for name in TOP.commands if f"## mlp-ci {name}\n" not in cli]
    actions = (reference / "actions.md").read_text(encoding="utf-8")
    assert not [p.parent.name for p in ROOT.glob("actions/*/action.yml") if f"## {p.parent.name}\n" not in actions]
    templates = (reference / "workflow-templates.md").read_text(encoding="utf-8")
    assert not [p.name for p in ROOT.glob("workflow-templates/*.yml") if f"## {p.name}\n" not in templates]
    assert all((reference / f"{kind}-yaml.md").is_file() for kind in ("model", "promotion", "platform"))


def test_no_page_names_the_host_of_a_package_registry() -> None:
    hosts = ("pypi" + ".org", "pythonhosted", "registry." + "npmjs", "deb." + "debian")
    assert not [names(p) for p in PAGES if any(h in p.read_text(encoding="utf-8") for h in hosts)]
