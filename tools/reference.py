"""Writes the reference pages and the JSON Schemas from their one source: the spec classes, the CLI, the actions.

``--check`` writes nothing and exits 1 when a page is out of date (a test calls it).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NOTE = "<!-- Written by `make docs`; edit the source it names instead. -->\n\n"
FILES = {
    "model": ("model.yaml", "What a model is. Lives in the model repository; people change it by pull request."),
    "promotion": (
        "promotion.yaml",
        "Which version should be where. The only file that a promotion pull request may change.",
    ),
    "platform": (
        "platform.yaml",
        "What holds for the whole organisation. Lives in the organisation's `.github` repository.",
    ),
    "gateway": (
        "gateway.yaml",
        "Several models and tenants behind one address, for [`mlp-ci gateway`](../how-to/route-several-models.md).",
    ),
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file: its path and what belongs in it."""
    from mlp_ci.spec.schema import json_schema, schema_text

    for kind, (name, purpose) in FILES.items():
        yield ROOT / "schemas" / f"{kind}.schema.json", schema_text(kind)
        yield ROOT / "docs/reference" / f"{kind}-yaml.md", file_page(name, purpose, json_schema(kind))
    yield ROOT / "docs/reference/cli.md", cli_page()
    yield ROOT / "docs/reference/actions.md", actions_page()
    yield ROOT / "docs/reference/workflow-templates.md", templates_page()


# ---------------------------------------------------------------- file formats


def file_page(name: str, purpose: str, schema: dict[str, Any]) -> str:
    """One page per file format: a table per section, in the order of the file."""
    lines = [f"# {name}\n", NOTE + purpose + "\n"]
    kind = name.split(".", maxsplit=1)[0]
    lines.append(
        f"An editor checks it while you type if the first line is "
        f"`# yaml-language-server: $schema=…/schemas/{kind}.schema.json`; `mlp-ci schema {kind}` prints the schema. "
        "Unknown keys are errors; keys that start with `x-` are yours.\n"
    )
    lines += section(schema, schema, "")
    return "\n".join(lines).rstrip() + "\n"


def section(root: dict[str, Any], node: dict[str, Any], path: str) -> list[str]:
    """The table of one mapping, followed by the sections of the mappings inside it."""
    required = set(node.get("required", ()))
    lines = [f"## {path}\n"] if path else []
    if path and node.get("description"):
        lines.append(node["description"].split("\n")[0] + "\n")
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    deeper: list[str] = []
    for key, raw in node.get("properties", {}).items():
        child, suffix = resolve(root, raw)
        default = "**required**" if key in required else default_text(raw)
        cells = (f"`{key}`", type_text(root, raw), default, raw.get("description", child.get("description", "")))
        lines.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
        if child.get("properties"):
            deeper += section(root, child, f"{path}.{key}{suffix}" if path else f"{key}{suffix}")
    return [*lines, "", *deeper]


def resolve(root: dict[str, Any], node: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Follow a reference, into the items of a list (`[]`) or the values of a mapping (`.<name>`)."""
    for option in node.get("anyOf", ()):
        if option.get("type") != "null":
            found = resolve(root, option)
            if found[0].get("properties"):
                return found
    if "$ref" in node:
        return root["$defs"][node["$ref"].rsplit("/", 1)[1]], ""
    if node.get("type") == "array" and isinstance(node.get("items"), dict):
        return resolve(root, node["items"])[0], "[]"
    if node.get("type") == "object" and isinstance(node.get("additionalProperties"), dict):
        return resolve(root, node["additionalProperties"])[0], ".&lt;name&gt;"
    return node, ""


def type_text(root: dict[str, Any], node: dict[str, Any]) -> str:
    """A type in a few words."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(type_text(root, o) for o in node["anyOf"] if o.get("type") != "null"))
    if "enum" in node:
        return ", ".join(f"`{v}`" for v in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "$ref" in node:
        target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return type_text(root, target) if "enum" in target else "section"
    if node.get("type") == "array":
        items = node.get("items") or (node.get("prefixItems") or [{}])[0]
        return f"list of {type_text(root, items)}"
    if node.get("type") == "object":
        inner = node.get("additionalProperties")
        return f"name → {type_text(root, inner)}" if isinstance(inner, dict) else "mapping"
    if node.get("format") in ("date-time", "date"):
        return node["format"]
    text = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false"}
    shown = text.get(node.get("type", ""), "anything")
    return f"{shown}, {limits(node)}" if limits(node) else shown


def limits(node: dict[str, Any]) -> str:
    """The bounds of a number, or the form of a text."""
    parts = [f"≥ {node['minimum']:g}"] if "minimum" in node else []
    parts += [f"> {node['exclusiveMinimum']:g}"] if "exclusiveMinimum" in node else []
    parts += [f"≤ {node['maximum']:g}"] if "maximum" in node else []
    if str(node.get("pattern", "")).startswith("^(\\d"):
        parts.append("such as `2h` or `45d`")
    return ", ".join(parts)


def default_text(node: dict[str, Any]) -> str:
    """The default as one would write it in the file."""
    default = node.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{json.dumps(default, default=str)}`" if default != [] else ""


# ---------------------------------------------------------------- CLI


def cli_page() -> str:
    """Every command with its options, from the command line itself."""
    import typer

    from mlp_ci.cli import app

    top: Any = typer.main.get_command(app)
    lines = ["# The command line\n", NOTE + plain(top.help) + "\n"]
    lines.append(plain(top.epilog) + "\n")
    for name, command in sorted(top.commands.items()):
        lines += command_section(f"mlp-ci {name}", command)
    return "\n".join(lines).rstrip() + "\n"


def command_section(title: str, command: Any) -> list[str]:
    """One command, or a group and the commands in it."""
    lines = [f"## {title}\n", plain(command.help) + "\n"]
    rows = [option_row(p) for p in command.params if p.name != "help"]
    if rows:
        lines += ["| option | default | environment | meaning |", "|---|---|---|---|", *rows, ""]
    for name, child in getattr(command, "commands", {}).items():
        lines += command_section(f"{title} {name}", child)
    return lines


def option_row(parameter: Any) -> str:
    """One row of a command's table."""
    names = ", ".join(f"`{o}`" for o in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    default = parameter.default
    shown = "" if default in (None, False, (), []) or "Ellipsis" in str(default) else f"`{default}`"
    environment = f"`{parameter.envvar}`" if parameter.envvar else ""
    meaning = plain(getattr(parameter, "help", "") or "")
    return f"| {names} | {shown} | {environment} | {meaning} |".replace("\n", " ")


def plain(text: str | None) -> str:
    """Help text without its terminal markup."""
    from rich.text import Text

    return Text.from_markup(text or "").plain.strip()


# ---------------------------------------------------------------- actions and templates


def actions_page() -> str:
    """Every composite action with its inputs and outputs."""
    lines = [
        "# Actions\n",
        NOTE + "One composite action per command of the loop. Each installs mlp-ci (unless the runner has this "
        "version already) and runs the command of its name; what runs in CI is what you can run by hand.\n",
    ]
    for file in sorted((ROOT / "actions").glob("*/action.yml")):
        action = yaml.safe_load(file.read_text(encoding="utf-8"))
        lines += [f"## {file.parent.name}\n", action["description"].strip() + "\n"]
        lines += ["| input | default | meaning |", "|---|---|---|"]
        for name, spec in (action.get("inputs") or {}).items():
            default = "**required**" if spec.get("required") else f"`{spec['default']}`" if spec.get("default") else ""
            lines.append(f"| `{name}` | {default} | {' '.join(spec['description'].split())} |")
        if action.get("outputs"):
            lines += ["", "| output | meaning |", "|---|---|"]
            outputs = action["outputs"].items()
            lines += [f"| `{name}` | {' '.join(spec['description'].split())} |" for name, spec in outputs]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def templates_page() -> str:
    """Every workflow template: when it runs, what it may do, which actions it calls."""
    lines = [
        "# Workflow templates\n",
        NOTE + "In the organisation's `.github` repository under `workflow-templates/`; GitHub offers them to every "
        "repository that has a `model.yaml`. Repositories made with `mlp-ci init` have them already.\n",
    ]
    for file in sorted((ROOT / "workflow-templates").glob("*.yml")):
        properties = json.loads(file.with_suffix(".properties.json").read_text(encoding="utf-8"))
        # BaseLoader: `on` stays a word instead of becoming true.
        workflow = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        lines += [f"## {file.name}\n", f"**{properties['name']}.** {properties['description']}\n"]
        triggers = workflow["on"] if isinstance(workflow["on"], dict | list) else [workflow["on"]]
        lines.append(f"Runs on: {', '.join(f'`{t}`' for t in triggers)}.\n")
        lines += ["| job | permissions | actions |", "|---|---|---|"]
        for name, job in workflow["jobs"].items():
            grants = ", ".join(f"{k}: {v}" for k, v in (job.get("permissions") or {}).items())
            uses = [s["uses"].split("@")[0].rsplit("/", 1)[1] for s in job["steps"] if "uses" in s]
            lines.append(f"| `{name}` | {grants} | {' → '.join(f'`{u}`' for u in uses)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def main(argv: list[str]) -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = []
    for path, text in pages():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if "--check" not in argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in argv:
        print(f"out of date: {', '.join(stale)}; run `make docs`")
        return 1
    print(f"wrote {', '.join(stale)}" if stale else "all pages are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
