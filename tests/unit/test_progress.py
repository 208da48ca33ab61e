"""Progress is for somebody who waits at a terminal, and for nobody else."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys

import pytest

from mlp_ci import progress

CODE = """
import time
from mlp_ci.progress import doing, shown
with shown("deploy"):
    doing("fetching version [3]")
    time.sleep({seconds})
print("done")
"""


def at_a_terminal(seconds: float, code: str = CODE, **env: str) -> str:
    """What a terminal shows on stderr while the code runs."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", code.format(seconds=seconds)]
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": "100", **env}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, env=settings
    ) as run:
        os.close(follower)
        seen = b""
        try:
            while chunk := os.read(leader, 4096):
                seen += chunk
        except OSError:  # how Linux says that the other side is closed
            assert run.stdout is not None
            assert run.stdout.read() == b"done\n"
    os.close(leader)
    return seen.decode()


def test_what_takes_long_is_shown_with_its_time() -> None:
    seen = at_a_terminal(1.6)
    assert "fetching version [3]" in seen
    assert "0:00:01" in seen


def test_how_far_it_is_is_shown_where_it_is_known() -> None:
    told = CODE.replace('    doing("fetching version [3]")', '    doing("a [1]"); share(0.5)').replace(
        "import doing", "import doing, share"
    )
    assert "━━━" in at_a_terminal(1.6, code=told)
    assert "━━━" not in at_a_terminal(1.6)


def test_what_is_quick_shows_nothing() -> None:
    assert "fetching" not in at_a_terminal(0.1)


def test_a_job_shows_nothing() -> None:
    assert at_a_terminal(1.2, GITHUB_ACTIONS="true") == ""


def test_a_pipe_shows_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(seconds=1.2)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout + done.stderr == "done\n"


def test_how_fast_it_goes_is_shown_beside_how_far_it_is() -> None:
    told = CODE.replace(
        '    doing("fetching version [3]")', '    doing("a"); share(0.5, "10 rows/s, 3 min left")'
    ).replace("import doing", "import doing, share")
    assert "10 rows/s, 3 min left" in at_a_terminal(1.6, code=told)


def test_a_job_gets_a_line_each_minute_of_work_that_says_how_fast_it_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with progress.shown("predict"):
        [minutes] = [h for h in logging.getLogger("mlp_ci.progress").handlers if isinstance(h, progress._Minutes)]
        progress.share(0.1, "10 rows/s")
        assert capsys.readouterr().err == ""
        minutes.last -= 61
        progress.share(0.25, "20 rows/s")
        progress.share(0.26, "20 rows/s")
        progress.share(0.5)
    progress.share(0.9, "nobody listens any more")
    assert capsys.readouterr().err == "predict: 25%, 20 rows/s\n"


def test_what_has_to_be_known_before_the_end_stays_in_a_jobs_log_and_at_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with progress.shown("deploy"):
        progress.note("staging: at least\n4 h [of it]")
        assert capsys.readouterr().err == "deploy: staging: at least 4 h [of it]\n"
    progress.note("nobody listens any more")
    assert capsys.readouterr().err == ""
    told = CODE.replace('doing("fetching version [3]")', 'note("at least 4 h [of it]")')
    assert "at least 4 h [of it]" in at_a_terminal(1.0, code=told.replace("import doing", "import note, doing"))
