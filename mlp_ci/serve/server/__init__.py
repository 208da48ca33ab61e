"""One version's model server, a process of its own: ``python -m mlp_ci.serve.server``, see :mod:`.program`."""
