"""GitHub's REST API over the forge: routes by subject, each a thin step from HTTP to the modules with the rules."""
