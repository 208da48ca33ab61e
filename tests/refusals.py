"""What every refusal of the command line looks like, whatever was wrong."""

from __future__ import annotations

import json
from subprocess import CompletedProcess


def refused(done: CompletedProcess[str], code: int, *said: str) -> str:
    """Assert that a command ended with ``code`` and one clear message that says each of ``said``; returns stderr.

    One clear message: what is wrong and how to mend it, no traceback, nothing else on stderr; and where JSON was asked
    for, one document of the same on stdout.
    """
    shown = f"exit {done.returncode}\n--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}"
    assert done.returncode == code, shown
    assert "Traceback" not in done.stdout + done.stderr, shown
    assert "bug in mlp-ci" not in done.stdout + done.stderr, shown
    for text in said:
        assert text in done.stderr, f"{text!r} is not said\n{shown}"
    assert done.stderr.lstrip().startswith(("✗", "::stop-commands::")), f"something else is said first\n{shown}"
    assert "fix: " in done.stderr or "→ " in done.stderr, f"nothing says how to mend it\n{shown}"
    assert "\x1b" not in done.stdout + done.stderr, shown
    if done.stdout.startswith("{"):
        answer = json.loads(done.stdout)
        assert answer["error"]["exit_code"] == code, shown
        assert answer["headline"], shown
    return done.stderr
