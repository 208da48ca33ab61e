"""Train a version again, and say whether the same comes out."""

from mlp_ci.reproduce.flow import reproduce

__all__ = ["reproduce"]
