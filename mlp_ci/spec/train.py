"""The section ``train`` of model.yaml: the command, where it runs, how it is kept alive."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlp_ci.spec.quantities import Duration, Name, RepoPath, Strict
from mlp_ci.spec.sweep import Sweep

BackendName = Literal["runner", "docker", "kubernetes", "ray"]


class Environment(Strict):
    """What the training command runs in; exactly one of these."""

    uv: RepoPath | None = Field(None, description="A pyproject.toml (with uv.lock beside it, if there is one).")
    pip: RepoPath | None = Field(None, description="A requirements file.")
    conda: RepoPath | None = Field(None, description="An environment.yml.")
    image: str | None = Field(None, description="A container image, by digest.")
    inherit: bool | None = Field(None, description="The environment that mlp-ci itself runs in.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.inherit is False:
            msg = "give exactly one of uv, pip, conda, image or inherit: true"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def file(self) -> str | None:
        """The file that pins the environment, inside the repository."""
        return self.uv or self.pip or self.conda


class Resources(Strict):
    """What the training command needs of its machine; what is not given is what the runner class has."""

    gpus: Annotated[int, Field(ge=0, le=1024)] | None = Field(None, description="GPUs on each machine.")
    cpus: Annotated[float, Field(gt=0)] | None = Field(None, description="Processors on each machine.")
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="Memory on each machine, in GB.")
    disk_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="Free disk on each machine, in GB.")


class Checkpoints(Strict):
    """How $MLP_CHECKPOINTS is kept, so that another machine can go on."""

    every: Duration = Field(timedelta(minutes=10), description="How often new checkpoints are saved while training.")
    store: Literal["mlflow", "dvc"] = Field("mlflow", description="Where: with the run, or in the DVC remote.")


class Watchdog(Strict):
    """When a training that goes nowhere is ended, with the reason. ``never`` is written as 0s."""

    stalled: Duration = Field(
        timedelta(minutes=30), description="Ended after so long without output and without use of processor or GPU."
    )
    silent: Duration = Field(timedelta(0), description="Ended after so long without output; 0s: silence is allowed.")
    gpu_idle: Duration = Field(
        timedelta(minutes=30), description="Ended after so long without use of the GPUs that it asked for; 0s: never."
    )


class Train(Strict):
    """How the model is trained."""

    command: str = Field(min_length=1, description="Any command; DESIGN: see the training contract.")
    params: RepoPath | None = Field(None, description="A YAML or JSON file of parameters, given as MLP_PARAMS.")
    runner: Name | tuple[str, ...] = Field(
        "default", description="A runner class of platform.yaml, or a list of runner labels."
    )
    backend: BackendName = Field(
        "runner", description="Where the command runs: on the job's own machine, in a container, in a cluster."
    )
    nodes: int = Field(1, ge=1, le=1024, description="Machines that train together (kubernetes, with torchrun).")
    network: bool = Field(False, description="docker: whether the container reaches more than MLflow.")
    resources: Resources = Field(Resources(), description="What it needs of its machine.")  # type: ignore[call-arg]
    environment: Environment = Field(Environment(inherit=True), description="What the command runs in.")  # type: ignore[call-arg]
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Given as MLP_SEED.")
    timeout: Duration = Field(timedelta(hours=6), description="The command is stopped after this long.")
    checkpoints: Checkpoints = Field(Checkpoints(), description="How checkpoints are kept.")  # type: ignore[call-arg]
    watchdog: Watchdog = Field(Watchdog(), description="When a stuck training is ended.")  # type: ignore[call-arg]
    sweep: Sweep | None = Field(None, description="Search for the best parameters.")

    @model_validator(mode="after")
    def _nodes_need_a_cluster(self) -> Self:
        if self.nodes > 1 and self.backend != "kubernetes":
            msg = "nodes above 1 need `backend: kubernetes`"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _sweep_needs_params(self) -> Self:
        if self.sweep and self.params is None:
            msg = "sweep needs `params`: the file in which the searched parameters stand"
            raise ValueError(msg)
        return self
