"""For people who look at data: describe it for ``model.yaml``, say what changed, draw its profile."""
