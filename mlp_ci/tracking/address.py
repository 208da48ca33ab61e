"""Reaching MLflow, and saying it plainly when that fails."""

from __future__ import annotations

import http.client
import logging
import os
import re
import urllib.error
import urllib.request
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.tracking.rest import RestClient, speaks_plainly

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_CONTACT_SECONDS = 4.0
ADDRESS = "MLFLOW_TRACKING_URI looks like http://mlflow.example.com:5000"
# A request that hangs or fails is worth three more tries (about ten seconds), not MLflow's default of minutes.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


def shown(uri: str) -> str:
    """An address without the user and password that it may carry."""
    return re.sub(r"//[^/@]*@", "//", uri)


def require_address(uri: str) -> None:
    """Refuse what cannot be an address of MLflow: a scheme that MLflow does not know, or a server without a name.

    A path or a file, which have no scheme, are MLflow's to judge.
    """
    scheme, separator, rest = uri.partition("://")
    known = ("http", "https", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc")
    if separator and (scheme.split("+")[0] not in known or (scheme.startswith("http") and not rest.strip("/"))):
        msg = f"{shown(uri)!r} is not an address of MLflow"
        raise InputError(msg, fix=ADDRESS)


def first_contact(uri: str) -> None:
    try:
        with urllib.request.urlopen(f"{shown(uri)}/health", timeout=FIRST_CONTACT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return  # a gateway in front that keeps /health for itself; somebody answers
        reason = f"it answered {error.code}"
    except (ValueError, http.client.InvalidURL) as error:
        msg = f"{shown(uri)!r} is not an address: {error}"
        raise InputError(msg, fix=ADDRESS) from error
    except OSError as error:
        reason = str(getattr(error, "reason", "") or error or type(error).__name__)
    msg_0 = f"MLflow at {shown(uri)} cannot be reached: {reason}"
    raise OutsideError(
        msg_0,
        why="nothing can be recorded without it, so nothing was started",
        fix=f"start it or mend the address, check with `curl {shown(uri)}/health`, and run the same command again",
    )


def server_time(uri: str) -> float | None:
    """What time it is (Unix seconds) by the server's answers; None where nobody answers or no server is asked."""
    if not uri.startswith("http"):
        return None
    try:
        with urllib.request.urlopen(f"{shown(uri)}/health", timeout=FIRST_CONTACT_SECONDS) as answer:
            said = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # a gateway in front tells the time as well
        said = error.headers.get("Date")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    try:
        return parsedate_to_datetime(said).timestamp() if said else None
    except ValueError:
        return None


def open_client(uri: str) -> Any:
    """Plain requests where they reach MLflow; MLflow's own client, slower to import, for every other address."""
    if speaks_plainly(uri, os.environ):
        return RestClient(uri)
    return mlflow_client(uri)


def mlflow_client(uri: str) -> Any:
    """MLflow's own client."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        from mlflow.tracking import MlflowClient

        with speaking(f"opening MLflow at {shown(uri)}"):
            return MlflowClient(uri)
    except ImportError as error:
        msg = f"MLflow at {shown(uri)} needs a package that is not installed: {error}"
        raise InputError(msg, fix='pip install "mlp-ci[train]", or use the http address of an MLflow server') from error


@contextmanager
def speaking(doing: str) -> Iterator[None]:
    """Turn whatever MLflow raises into one of our errors."""
    try:
        yield
    except MlpError:
        raise
    except OSError as error:
        msg = f"{doing} failed: {error}"
        raise OutsideError(msg, fix="run the same command again") from error
    except Exception as error:
        code = getattr(error, "error_code", None)  # MLflow's own exceptions have one, and so has RestError
        if code is None:
            raise
        text = " ".join(str(error).removeprefix(f"{code}: ").split())[:600]
        if code in _GONE or "Current state is deleted" in text:
            fix = "run `mlp-ci train` again; it begins a new run where the old one was deleted"
            msg = f"{doing}: it is gone from MLflow: {text}"
            raise OutsideError(msg, fix=fix) from error
        if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
            fix = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            msg = f"{doing}: MLflow refuses: {text}"
            raise InputError(msg, fix=fix) from error
        msg = f"{doing} failed: {text}"
        raise OutsideError(msg, fix="see MLflow's log, then run the same command again") from error
