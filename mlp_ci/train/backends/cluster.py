"""The only user of the Kubernetes client: jobs, pods and logs of one namespace, as plain values."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.train.backends.manifests import MANAGER, RUNTIME, TRAINER_API, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.spec.platform import Kubernetes

APPLY = "application/apply-patch+yaml"
REQUEST_SECONDS = 30
GONE_SECONDS = 120
PLURALS = {"batch/v1": "jobs", TRAINER_API: "trainjobs"}


def ended(job: Manifest) -> str:
    """Complete or Failed, once the job is; else an empty text. Job and TrainJob tell it in the same way."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            return str(condition["type"])
    return ""


def client_of(context: str | None, asked_by: str, setting: str) -> Any:
    """An ApiClient of the Kubernetes client: by the kubeconfig, or in a pod by its service account.

    InputError when there is neither; ``asked_by`` names the key of model.yaml that is kubernetes, ``setting`` the one
    of platform.yaml that names the context.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        msg = f"{asked_by} is kubernetes, and the Kubernetes client is not installed"
        raise InputError(msg, fix='pip install "mlp-ci[kubernetes]"') from error
    configuration = client.Configuration()
    try:
        try:
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(file, context=context, client_configuration=configuration)
        except config.ConfigException:
            if context:
                raise
            config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        msg = f"{asked_by} is kubernetes, and nothing says where the cluster is"
        fix = f"set KUBECONFIG (and `{setting}` in platform.yaml), or run this in a pod of the cluster"
        raise InputError(msg, why=" ".join(str(error).split())[:300], fix=fix) from error
    return client.ApiClient(configuration)


@dataclass(frozen=True)
class Cluster:
    """One namespace of a cluster; ``client`` is an ApiClient of the Kubernetes client."""

    client: Any
    namespace: str

    @classmethod
    def connect(cls, where: Kubernetes) -> Cluster:
        """By the kubeconfig, or in a pod by its service account; InputError when there is neither."""
        return cls(client_of(where.context, "train.backend", "backends: {kubernetes: {context: …}}"), where.namespace)

    def job(self, kind: str, name: str) -> Manifest | None:
        """A Job (``batch/v1``) or TrainJob; None when there is none."""
        from kubernetes.client import ApiException, CustomObjectsApi

        group, version = kind.split("/")
        try:
            found = CustomObjectsApi(self.client).get_namespaced_custom_object(
                *(group, version, self.namespace, PLURALS[kind], name),
                _preload_content=False,
                _request_timeout=REQUEST_SECONDS,
            )
        except ApiException as error:
            if error.status == 404:
                return None
            self._refuse(error, f"reading job {name}")
        except Exception as error:
            self._unreachable(error)
        return dict(json.loads(found.data))

    def apply_job(self, manifest: Manifest) -> Manifest:
        """Server-side apply, as ``mlp-ci``: fields that others manage stay theirs."""
        from kubernetes.client import ApiException, CustomObjectsApi

        group, version = manifest["apiVersion"].split("/")
        try:
            made = CustomObjectsApi(self.client).patch_namespaced_custom_object(
                group,
                version,
                self.namespace,
                PLURALS[manifest["apiVersion"]],
                manifest["metadata"]["name"],
                manifest,
                field_manager=MANAGER,
                _content_type=APPLY,
                _preload_content=False,  # the client knows no answer 201, which is what a new object gets
                _request_timeout=REQUEST_SECONDS,
            )
        except ApiException as error:
            self._refuse(error, f"making {manifest['kind']} {manifest['metadata']['name']}")
        except Exception as error:
            self._unreachable(error)
        return dict(json.loads(made.data))

    def apply_service(self, manifest: Manifest) -> None:
        from kubernetes.client import ApiException, CoreV1Api

        try:
            CoreV1Api(self.client).patch_namespaced_service(
                manifest["metadata"]["name"],
                self.namespace,
                manifest,
                field_manager=MANAGER,
                _content_type=APPLY,
                _preload_content=False,
                _request_timeout=REQUEST_SECONDS,
            )
        except ApiException as error:
            self._refuse(error, f"making Service {manifest['metadata']['name']}")
        except Exception as error:
            self._unreachable(error)

    def delete(self, kind: str, name: str) -> None:
        """Delete a job with its pods, and wait until it is gone."""
        from kubernetes.client import ApiException, CustomObjectsApi

        group, version = kind.split("/")
        try:
            CustomObjectsApi(self.client).delete_namespaced_custom_object(
                group, version, self.namespace, PLURALS[kind], name, propagation_policy="Foreground"
            )
        except ApiException as error:
            if error.status == 404:
                return
            self._refuse(error, f"deleting job {name}")
        except Exception as error:
            self._unreachable(error)
        deadline = time.monotonic() + GONE_SECONDS
        while self.job(kind, name) is not None:
            if time.monotonic() > deadline:
                msg = f"job {name} is being deleted, and is still there after {GONE_SECONDS} s"
                raise OutsideError(msg, fix=f"`kubectl --namespace {self.namespace} describe job {name}` says why")
            time.sleep(0.5)

    def has_trainer(self) -> bool:
        """Whether Kubeflow Trainer is installed, with the runtime for torch."""
        from kubernetes.client import ApiException, CustomObjectsApi

        group, version = TRAINER_API.split("/")
        try:
            CustomObjectsApi(self.client).get_cluster_custom_object(group, version, "clustertrainingruntimes", RUNTIME)
        except ApiException:
            return False  # not there, or not for us: an Indexed Job does as well
        except Exception as error:
            self._unreachable(error)
        return True

    def pods(self, name: str) -> list[Manifest]:
        """The pods of a job, the first one first."""
        from kubernetes.client import ApiException, CoreV1Api

        found: list[Manifest] = []
        # A TrainJob's pods have no label of ours, but the one of the JobSet that Kubeflow Trainer makes of it.
        for selector in (f"mlp-ci/job={name}", f"jobset.sigs.k8s.io/jobset-name={name}"):
            try:
                answer = CoreV1Api(self.client).list_namespaced_pod(
                    self.namespace, label_selector=selector, _preload_content=False, _request_timeout=REQUEST_SECONDS
                )
            except ApiException as error:
                self._refuse(error, f"looking for the pods of job {name}")
            except Exception as error:
                self._unreachable(error)
            found = found or list(json.loads(answer.data).get("items") or ())
        return sorted(found, key=_index)

    def waits_for(self, name: str) -> str:
        """Why the first pod does not run yet, as ``Reason: message``; empty when it does, or did."""
        for pod in self.pods(name)[:1]:
            status = pod.get("status") or {}
            for container in status.get("containerStatuses") or ():
                waiting = (container.get("state") or {}).get("waiting")
                if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
                    return f"{waiting.get('reason', '')}: {waiting.get('message', '')}"
            for condition in status.get("conditions") or ():
                if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                    return f"{condition.get('reason', '')}: {condition.get('message', '')}"
        return ""

    def exit_of(self, name: str) -> tuple[int | None, str]:
        """Exit code and reason (such as OOMKilled) of the first pod that ended badly; None when nothing tells."""
        for pod in self.pods(name):
            for container in (pod.get("status") or {}).get("containerStatuses") or ():
                state = (container.get("state") or {}).get("terminated")
                if state and state.get("exitCode"):
                    return int(state["exitCode"]), str(state.get("reason", ""))
        return None, ""

    def log_lines(self, name: str, *, follow: bool) -> Iterator[str]:
        """The log of the first pod from its beginning; ends early when there is none yet or the connection is lost."""
        from kubernetes.client import CoreV1Api

        try:
            pods = self.pods(name)
            if not pods:
                return
            answer = CoreV1Api(self.client).read_namespaced_pod_log(
                pods[0]["metadata"]["name"], self.namespace, follow=follow, _preload_content=False
            )
            rest = b""
            for chunk in answer.stream(4096, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", errors="replace") for line in lines)
            if rest and not follow:  # else it may be half of a line
                yield rest.decode("utf-8", errors="replace")
        except Exception:  # a log that cannot be read now is read again; the job's state says what counts
            return

    def _refuse(self, error: Any, doing: str) -> NoReturn:
        try:
            said = str(json.loads(error.body)["message"])
        except (ValueError, KeyError, TypeError):
            said = str(error.reason)
        msg = f"the cluster refuses {doing} ({error.status})"
        if error.status in (400, 409, 422):
            raise InputError(msg, why=said[:600], fix="mend what it names in model.yaml or platform.yaml") from error
        fix = "let this user (or service account) create, get, delete jobs, list pods and read their logs in "
        raise OutsideError(msg, why=said[:600], fix=f"{fix}namespace {self.namespace}") from error

    def _unreachable(self, error: Exception) -> NoReturn:
        """urllib3 has many errors for one thing."""
        if not (type(error).__module__.startswith(("urllib3", "http")) or isinstance(error, OSError)):
            raise error
        msg = "the cluster cannot be reached"
        fix = "see that its API server answers this machine (`kubectl version`), and run the same command again"
        raise OutsideError(msg, why=" ".join(str(error).split())[:400], fix=fix) from error


def _index(pod: Manifest) -> tuple[int, str]:
    notes = pod["metadata"].get("annotations") or {}
    index = notes.get("batch.kubernetes.io/job-completion-index", "0")
    return (int(index) if index.isdigit() else 0, pod["metadata"]["name"])
