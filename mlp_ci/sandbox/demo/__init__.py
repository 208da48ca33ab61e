"""``mlp-ci sandbox demo``: a real model goes round the whole loop.

The demo does only what a team would do: push, open, review, merge, send traffic. Everything else happens because of
it, in the workflows of the repository; the demo waits for them and tells what it sees through GitHub's API.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.report import Report, Table

if TYPE_CHECKING:
    from mlp_ci.sandbox.demo.story import Story


def run(folder: Path | None, *, fast: bool, keep: bool, quiet: bool) -> Report:
    """Play the demo in a sandbox of its own in ``folder`` (a fresh temporary one, if None)."""
    from rich.console import Console

    from mlp_ci.sandbox import lifecycle
    from mlp_ci.sandbox.demo.chapters import APRIL, CHAPTERS
    from mlp_ci.sandbox.demo.story import Story

    console = Console(highlight=False, stderr=quiet, soft_wrap=True)
    root = (folder or Path(tempfile.mkdtemp(prefix="mlp-ci-demo-"))).resolve()
    began = time.monotonic()
    console.print(f"[dim]The sandbox of this demo: {root}[/dim]")
    try:
        with console.status("starting the forge, the runner and MLflow"):
            home = lifecycle.up(root, instant=APRIL)
        story = Story(home=home, work=root / "work", every=40 if fast else 10, say=console.print)
        for chapter in CHAPTERS:
            chapter(story)
    except BaseException:
        console.print(
            f"[yellow]The sandbox stays for a look: logs in {root / 'logs'}; `mlp-ci sandbox down --home {root}`[/]"
        )
        raise
    report = _last_screen(story, time.monotonic() - began)
    if keep:
        report.links += _look_around(story)
    else:
        lifecycle.down(root)
        if folder is None:
            shutil.rmtree(root)
        report.links.append(("look around next time", "make demo ARGS=--keep"))
    return report


def _last_screen(story: Story, seconds: float) -> Report:
    rows = tuple((i, told.title, told.result, round(told.seconds, 1)) for i, told in enumerate(story.told, 1))
    table = Table(title="The loop, once around", columns=("", "what the team did", "what happened", "s"), rows=rows)
    data = {"seconds": seconds, "steps": [vars(told) for told in story.told]}
    headline = f"the whole loop in {seconds:.0f} s: {len(rows)} steps, nothing staged"
    return Report(command="sandbox demo", headline=headline, tables=[table], data=data)


def _look_around(story: Story) -> list[tuple[str, str]]:
    from mlp_ci.sandbox.demo.story import REPO
    from mlp_ci.sandbox.organisation import login_link

    return [
        ("the repository's page (logs you in as alice, once)", login_link(story.home, "alice", f"/{REPO}")),
        ("MLflow", story.home.mlflow_url),
        ("Alice's work tree", str(story.tree)),
        ("when you have seen enough", f"mlp-ci sandbox down --home {story.home.root}"),
    ]
