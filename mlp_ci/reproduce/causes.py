"""Why a training came out differently: what differs between the two, and what in the code is known to vary.

Sources for what varies: PyTorch, "Reproducibility"; NVIDIA, cuBLAS and cuDNN documentation on reproducibility; XGBoost,
"tree_method" and "device"; LightGBM, parameters ``deterministic``, ``force_row_wise``; TensorFlow,
``enable_op_determinism``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MACHINE = {
    "mlp.python": "Python",
    "mlp.system": "system",
    "mlp.gpu": "GPU and driver",
    "mlp.cpus": "processors",
    "mlp.env": "environment",
    "mlp.backend": "back end",
    "mlp.image": "image",
}


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A cause that text gives away: ``found`` stands in code or log, and ``cured`` (if any) does not."""

    found: str
    cured: str
    cause: str


SEED = (
    r"MLP_SEED|manual_seed|random_state|default_rng|np\.random\.seed|random\.seed|seed_everything|set_seed|\bseed\s*="
)
SIGNS = (
    Sign(
        found=r"\btorch\b",
        cured=r"use_deterministic_algorithms",
        cause="PyTorch may take kernels that sum in another order (atomics in scatter, index_add, interpolation; "
        "cuDNN's autotuning): call torch.use_deterministic_algorithms(True)",
    ),
    Sign(
        found=r"\.cuda\(|[\"']cuda|device\s*=\s*[\"']?gpu",
        cured=r"CUBLAS_WORKSPACE_CONFIG",
        cause="cuBLAS sums in an order that its workspace decides: CUBLAS_WORKSPACE_CONFIG=:4096:8 fixes it",
    ),
    Sign(
        found=r"cudnn\.benchmark\s*=\s*True",
        cured="",
        cause="cuDNN picks the fastest kernel of the moment: torch.backends.cudnn.benchmark = False",
    ),
    Sign(
        found=r"does not have a deterministic implementation",
        cured="",
        cause="PyTorch itself names an operation without a deterministic kernel in the log",
    ),
    Sign(
        found=r"xgboost[\s\S]*?(gpu_hist|device[\"']?\s*[:=]\s*[\"']?(cuda|gpu))",
        cured="",
        cause="XGBoost's histograms on a GPU add floating point numbers in no fixed order",
    ),
    Sign(
        found=r"\blightgbm\b",
        cured=r"deterministic[\"']?\s*[:=]\s*[\"']?[Tt]rue",
        cause="LightGBM chooses its way of building histograms by timing: deterministic=True and force_row_wise=True",
    ),
    Sign(
        found=r"\btensorflow\b",
        cured=r"enable_op_determinism",
        cause="TensorFlow's kernels vary unless tf.config.experimental.enable_op_determinism() is called",
    ),
    Sign(
        found=r"\btime\.time\(|\bdatetime\.now\(|\buuid4?\(|os\.urandom|SystemRandom|\bsecrets\.",
        cured="",
        cause="the code reads the clock or random bytes of the system, which no seed fixes",
    ),
    Sign(
        found=r"n_jobs\s*=\s*-1|num_workers\s*=\s*[1-9]|multiprocessing|ThreadPool",
        cured="",
        cause="several threads or processes work side by side, and who ends first decides the order of sums",
    ),
)


def machine_differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not the same on the two machines, by the tags of the two runs; what one of them does not say is left."""
    return [
        f"{name}: {before[tag]} then, {now[tag]} now"
        for tag, name in MACHINE.items()
        if before.get(tag) and now.get(tag) and before[tag] != now[tag]
    ]


def signs(code: str, log: str) -> list[str]:
    """Causes that code and log give away. ``code``: all source files as one text."""
    found = [] if re.search(SEED, code) else ["no seed is set: the code neither reads MLP_SEED nor seeds anything"]
    both = f"{code}\n{log}"
    return found + [
        sign.cause for sign in SIGNS if re.search(sign.found, both) and not (sign.cured and re.search(sign.cured, both))
    ]


def causes(differs: Sequence[str], packages: Sequence[str], given_away: Sequence[str]) -> list[str]:
    """What probably made the difference, the likeliest first; never empty."""
    found = list(differs)
    if packages:
        shown = ", ".join(packages[:6]) + (f" and {len(packages) - 6} more" if len(packages) > 6 else "")
        found.append(f"packages of the model: {shown}")
    if not found:
        given_away = [*given_away] or ["training is random in a way that neither code nor log gives away"]
        return ["the machines and packages are the same, so training itself varies", *given_away]
    return [*found, *given_away]
