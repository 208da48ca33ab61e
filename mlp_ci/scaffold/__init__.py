"""Model repositories: started and brought up to date from the template; the project's own files at run time."""

from mlp_ci.scaffold.start import Choices, init
from mlp_ci.scaffold.template import pointed_at, shipped
from mlp_ci.scaffold.update import update

__all__ = ["Choices", "init", "pointed_at", "shipped", "update"]
