"""GitHub's REST API over the forge: routes grouped by subject, each a thin step from HTTP to the modules that hold the rules."""
