"""Prints docs/explanation/attacks.md, a page made from the files of this folder.

python -m tests.attacks.table > docs/explanation/attacks.md
"""

from __future__ import annotations

import sys

from tests.attacks.story import ABOUT, Story, files, load

PLACES = {
    "status": "status",
    "deploy": "deployment",
    "linter": "linter",
    "runner": "runner",
    "log": "log",
}
PAGE = """\
# Attacks

{count} ways to get a version into production (or more out of a workflow than one should) that mlp-ci refuses. Each is
a file in [`tests/attacks`](../../tests/attacks), written as a history: who opens, pushes, approves, dismisses,
merges, with which rights and under which name. Each has an honest twin, the same history without the trick, which has
to be allowed: a check that refuses everything is no check.

This page is made from these files (`python -m tests.attacks.table`), and a test holds it to them.

## How they are tried

- **Against the commands** (every third attack in each run of the tests, the others and all twins in the slow suite,
  which CI runs for every commit as well; `tests/attacks/test_replay.py`): a forge that speaks GitHub's
  API, real git, a real MLflow server. Everything people do is a request with their own token, so that no attack can
  do what its attacker may not do. `mlp-ci approvals` judges as in its job, and `deploy`'s check judges what was
  merged. The attack has to be refused **by the rule that is named here and by no other**.
- **Through the real workflows** (`tests/attacks/test_workflows.py`, among the slow tests): `promotion.yml` and
  `deploy.yml`, run by act, with real models and a real serving target. Refused means: no green status, a deployment
  that fails, and the attacker's version runs nowhere. Allowed means: the target serves it.

## Where they are stopped

**status**: `mlp-ci approvals` does not set the status to success, so nothing is merged where branch protection
requires it. **deployment**: `mlp-ci deploy` refuses before it loads anything, whatever was merged, by whomever. Most
attacks are stopped at both; those that forge the first, or never meet it, at the second alone.

The last column says which of GitHub's own settings would catch the same. Use them as well: they stop many attacks
earlier. `mlp-ci doctor --github` says which of those that the policy relies on are off.

{sections}
## What no check here can refuse

- **Two people together.** Two who may approve for each other can promote what they like. It is on record who did.
- **An administrator of the organisation** can take the place of the app, of the runner and of every repository. What
  they did shows in the records and in GitHub's audit log.
- **A writer who works through the bot.** Whoever may push workflows to a branch can let the app's or the workflow's
  own token open the promotion, and then approve it like anybody else: GitHub does not say who started the token's
  work. What is promoted is bound all the same: the version has passed its gate, its bytes and its evidence are those
  that were registered. "Allow GitHub Actions to create and approve pull requests" off, and the app's key in an
  environment that only the default branch may use, close this way.
- **A commit in somebody else's name, below another one.** GitHub's record of a push names its last commit only. Who
  pushes two commits to a branch of their own (or one, long before the pull request) and has somebody else begin the
  promotion's branch there is not seen; the one who began the branch is. "Require signed commits" closes this way.
- **A rollback nobody asked for.** Whoever may push to the default branch can go back to any version that was approved
  for the stage before, and that is meant: at night it has to be possible. It goes nowhere else, and it is on record.
- **Whoever runs the registry.** A version that was registered by hand with a forged gate and forged evidence looks
  like an honest one. Write access to MLflow belongs to the runners alone.
- **A fork that edits the workflow it is checked by.** GitHub runs a pull request's own version of a workflow. Only
  its settings for forks and runner groups keep that from a machine of one's own.
- **A secret that is printed backwards.** Masks know whole values.
"""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def row(story: Story) -> str:
    places = " and ".join(PLACES[place] for place in story.rules)
    rules = dict.fromkeys(rule for found in story.rules.values() for rule in found)
    named = ", ".join(f"`{rule}`" for rule in rules) if "log" not in story.rules else "masked"
    link = f"[{cell(story.title)}](../../tests/attacks/{story.name}.yaml)"
    return f"| {link} | {places} | {named} | {cell(story.github)} |"


def page() -> str:
    """The whole page."""
    attacks = [load(file)[0] for file in files()]
    sections = []
    for key, title in ABOUT.items():
        mine = sorted((a for a in attacks if a.about == key), key=lambda a: a.title)
        rows = "\n".join(map(row, mine))
        head = "| attack | stopped at | by the rule | GitHub's own settings that also catch it |\n|---|---|---|---|"
        sections.append(f"### {title}\n\n{head}\n{rows}\n")
    return PAGE.format(count=len(attacks), sections="\n".join(sections))


if __name__ == "__main__":
    sys.stdout.write(page())
