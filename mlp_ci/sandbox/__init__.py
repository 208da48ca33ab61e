"""The whole loop on one machine: a forge, a runner of workflows, MLflow, a DVC remote and local serving."""
