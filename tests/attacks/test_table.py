"""The page of attacks is what the files say, and every attack that issue 4 lists has its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import table
from tests.attacks.story import files, load

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "attacks.md"
LISTED = """
self-approval approval-before-the-last-push approval-by-a-co-author approval-by-the-committer approval-by-a-bot
approval-without-write-access approval-by-somebody-who-left dismissed-change-request two-approvals-by-one-person
spoofed-author unresolved-committer policy-and-promotion-together policy-loosened-in-an-earlier-commit workflow-edited
forged-status forged-check-run comment-edited-into-an-approval direct-push admin-bypass merge-of-a-second-branch
digest-swapped-in-the-registry version-number-reused evidence-swapped closed-and-reopened base-branch-changed
revert-of-a-revert racing-promotions quarantined-under-a-new-number symlink-as-promotion-file
submodule-as-promotion-file yaml-anchors duplicate-keys huge-number look-alike-stage fork-asks-for-the-gpu-runner
pull-request-target-checks-out-the-head secret-printed-by-a-workflow
"""


def test_the_page_is_made_from_the_files() -> None:
    assert PAGE.read_text(encoding="utf-8") == table.page(), (
        "python -m tests.attacks.table > docs/explanation/attacks.md"
    )


@pytest.mark.parametrize("name", LISTED.split())
def test_every_listed_attack_has_a_file(name: str) -> None:
    assert (Path(__file__).parent / f"{name}.yaml").is_file()


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.stem))
def test_attack_and_twin_differ_and_say_what_is_needed(file: Path) -> None:
    attack, twin = load(file)
    assert (attack.history, attack.setup) != (twin.history, twin.setup)
    assert attack.rules
    assert all(attack.rules.values())
    assert attack.wants.endswith((".", "?", "!"))
    assert attack.github
    assert not attack.title.endswith(".")
