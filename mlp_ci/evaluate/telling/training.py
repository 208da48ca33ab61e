"""What the training took: its machine, its time, its memory and its price, as the run remembers them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mlp_ci.spec.quantities import show_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.evaluate.telling.facts import Facts


def spent(facts: Facts) -> dict[str, str]:
    """What is known, in words, by what it is about; all attempts of the training together."""
    tags = facts.tags
    seconds, attempts = _number(tags, "mlp.train_seconds"), _number(tags, "mlp.attempts")
    lasted = show_duration(timedelta(seconds=max(1, round(seconds)))) if seconds else ""
    found = {
        "duration": lasted + (f" in {attempts:.0f} attempts" if lasted and attempts and attempts > 1 else ""),
        "cost": _in(tags, "mlp.cost_usd", "${:,.2f}"),
        "runner": tags.get("mlp.runner", ""),
        "machine": _machine(tags),
        "peak memory": _in(tags, "mlp.peak_memory_mb", "{:,.0f} MB"),
        "GPU use": _in(tags, "mlp.gpu_utilization", "{:.0f} %"),
        "GPU peak memory": _in(tags, "mlp.gpu_peak_memory_mb", "{:,.0f} MB"),
        "GPU energy": _in(tags, "mlp.energy_wh", "{:,.4g} Wh"),
    }
    return {name: value for name, value in found.items() if value}


def _in(tags: Mapping[str, str], name: str, form: str) -> str:
    value = _number(tags, name)
    return form.format(value) if value is not None else ""


def _machine(tags: Mapping[str, str]) -> str:
    parts = [f"{tags['mlp.cpus']} CPUs"] if tags.get("mlp.cpus") else []
    parts += [f"{tags['mlp.memory_gb']} GB"] if tags.get("mlp.memory_gb") else []
    gpu = tags.get("mlp.gpu", "")
    parts += [gpu] if gpu and gpu not in ("none", "unknown") else []
    return ", ".join(parts)


def _number(tags: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(tags.get(name, ""))
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None
