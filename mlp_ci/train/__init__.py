"""Runs a team's training command under the training contract and records it. Knows nothing of registries or gates."""

from mlp_ci.train.flow import train

__all__ = ["train"]
