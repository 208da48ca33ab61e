"""Where clients reach a model: what the Gateway says of itself, and the route's host and path."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from mlp_ci.errors import OutsideError
from mlp_ci.serve.targets import Answer
from mlp_ci.serve.targets.kubernetes import manifests

if TYPE_CHECKING:
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets.kubernetes.api import Api
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest
    from mlp_ci.spec.serve import KubernetesServing

POST_SECONDS = 20
PORTS = {"http": 80, "https": 443}


def address(api: Api, cluster: KubernetesServing, place: Place) -> str:
    """The address of a model in a stage, without a slash at its end; only a path where the Gateway cannot be asked."""
    parent = manifests.parent(cluster)
    try:
        gateway = api.get(manifests.GATEWAY_API, "Gateway", parent["name"], parent["namespace"])
    except OutsideError:  # its namespace is somebody else's
        gateway = None
    path = manifests.path_of(place, cluster).rstrip("/")
    host = manifests.host_of(place, cluster.hostname) if cluster.hostname else ""
    return f"{base(gateway, host)}{path}"


def base(gateway: Manifest | None, host: str) -> str:
    """``http://host:port`` of a Gateway; empty when nobody knows a host."""
    found = [a.get("value") for a in ((gateway or {}).get("status") or {}).get("addresses") or ()]
    host = host or (str(found[0]) if found and found[0] else "")
    listeners = ((gateway or {}).get("spec") or {}).get("listeners") or ()
    open_to = [(str(one.get("protocol", "")).lower(), int(one.get("port") or 0)) for one in listeners]
    known = [(scheme, port) for scheme, port in open_to if scheme in PORTS]
    scheme, port = next((one for one in known if one[0] == "https"), known[0] if known else ("http", 80))
    if not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port == PORTS[scheme] else f"{scheme}://{host}:{port}"


def post(address: str, body: bytes) -> Answer | None:
    """What the address answers; None when it is not reached from here."""
    if not address.startswith(("http://", "https://")):
        return None
    asked = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=POST_SECONDS) as answer:
            return Answer(int(answer.status), answer.read())
    except urllib.error.HTTPError as error:
        return Answer(int(error.code), error.read())
    except OSError:
        return None
