"""Runs the model server; :mod:`mlp_ci.serve.server.program` says with what options."""

import sys

from mlp_ci.serve.server.program import main

sys.exit(main())
