"""The three files that people write: ``model.yaml``, ``promotion.yaml``, ``platform.yaml``.

Owns their formats and nothing else: reading a file never looks at MLflow, GitHub or the data.
"""

from mlp_ci.spec.approval import Freeze, Need, Promote
from mlp_ci.spec.data import Column, Data
from mlp_ci.spec.evaluate import Evaluate, Gate
from mlp_ci.spec.load import (
    MODEL_FILE,
    PLATFORM_FILE,
    PROMOTION_FILE,
    default_platform,
    load_model,
    load_platform,
    load_promotion,
    parse_model,
    parse_platform,
    parse_promotion,
)
from mlp_ci.spec.model import ModelSpec
from mlp_ci.spec.platform import PlatformSpec, RunnerClass, Stage, TierPolicy
from mlp_ci.spec.promotion import PromotionSpec, Quarantined, StageEntry, edited_promotion, render_promotion
from mlp_ci.spec.quantities import TIERS, show_duration
from mlp_ci.spec.sweep import Folds, Sweep
from mlp_ci.spec.train import Environment, Train

__all__ = [
    "MODEL_FILE",
    "PLATFORM_FILE",
    "PROMOTION_FILE",
    "TIERS",
    "Column",
    "Data",
    "Environment",
    "Evaluate",
    "Folds",
    "Freeze",
    "Gate",
    "ModelSpec",
    "Need",
    "PlatformSpec",
    "Promote",
    "PromotionSpec",
    "Quarantined",
    "RunnerClass",
    "Stage",
    "StageEntry",
    "Sweep",
    "TierPolicy",
    "Train",
    "default_platform",
    "edited_promotion",
    "load_model",
    "load_platform",
    "load_promotion",
    "parse_model",
    "parse_platform",
    "parse_promotion",
    "render_promotion",
    "show_duration",
]
