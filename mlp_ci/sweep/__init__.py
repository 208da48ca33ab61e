"""The search for the best parameters: trials as child runs in MLflow, proposed by Optuna, trained like everything."""

from mlp_ci.sweep.flow import best_parameters, sweep

__all__ = ["best_parameters", "sweep"]
