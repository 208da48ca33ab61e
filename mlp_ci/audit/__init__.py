"""``mlp-ci audit``: whether records, approvals, guarded files, the registry and what serves agree with git."""
