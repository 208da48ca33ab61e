"""How many models were judged on the same held-out rows: each look at them wears them out a little.

Whoever picks the best of many models by the same rows picks in part what suits those rows by chance (Dwork et al., "The
reusable holdout", Science 2015). In practice that goes slowly (Recht et al., "Do ImageNet classifiers generalize to
ImageNet?", 2019), so the number is told, with a warning past ``evaluate.reuse_warning``, and decides nothing.

It is counted from tags of runs, by digests of models and data, and written down with the run when the model is first
judged: later looks at the same model find the same number.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_ci.evaluate.job import Job

JUDGED, USES = "mlp.judged", "mlp.uses"  # each followed by the digest of the held-out data
_UNPLAIN = re.compile("[^0-9a-zA-Z_-]")


def uses(job: Job, test_digest: str) -> int:
    """How many models were judged on these rows when this one first was, itself included."""
    place = _place(test_digest)
    noted = job.run.tags.get(f"{USES}.{place}", "")
    if noted.isdecimal():
        return int(noted)
    runs = job.tracking.tagged(job.spec.name, f"{JUDGED}.{place}", "yes")
    return len({run.digest for run in runs} | {job.run.digest})


def note(job: Job, test_digest: str, count: int) -> None:
    """Write down that this run's model was judged on these rows, as the ``count``-th."""
    place = _place(test_digest)
    tags = {f"{JUDGED}.{place}": "yes", f"{USES}.{place}": str(count)}
    if any(job.run.tags.get(name) != value for name, value in tags.items()):
        job.tracking.log(job.run.run_id, tags=tags)


def reuse_facts(count: int, warning_at: int) -> dict[str, Any]:
    """As the evidence keeps it."""
    return {"models": count, "warning_at": warning_at, "worn": count >= warning_at}


def warning(count: int, warning_at: int) -> str:
    """What to say about it; empty below the threshold."""
    if count < warning_at:
        return ""
    return f"{count} models were judged on these held-out rows: what is best on them is so partly by chance"


def _place(test_digest: str) -> str:
    return _UNPLAIN.sub("-", test_digest)
