"""A rollout: how far it is (progress), what to do next (steps: pure functions), and who does it (driving)."""
