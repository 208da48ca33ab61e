"""The checks of ``model.yaml``: judged, accepted for a while or not, and told."""
