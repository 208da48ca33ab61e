"""Files that a pod's containers read, and names of Services in them: what kubelet, DNS and kube-proxy do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

Object = dict[str, Any]
SERVICE = re.compile(r"http://([a-z0-9-]+)\.[a-z0-9-]+\.svc:80\b")
NOTE = re.compile(r"metadata\.annotations\['(.+)'\]")
NOBODY = "http://127.0.0.1:9"


def place(pod: Object, folder: Path) -> dict[str, str]:
    """Where containers believe their files to be → where they are here."""
    return {
        mount["mountPath"]: str(folder / pod["metadata"]["name"])
        for container in pod["spec"]["containers"]
        for mount in container.get("volumeMounts", ())
        if any(volume["name"] == mount["name"] for volume in _told(pod))
    }


def write(pod: Object, folder: Path, services: dict[str, tuple[int, list[str]]]) -> None:
    """Files of the downward API, if they are not so yet. A Service's name becomes the address of one of its pods."""

    def address(found: re.Match[str]) -> str:
        addresses = services.get(found[1], (0, []))[1]
        return f"http://{addresses[0]}:8080" if addresses else NOBODY

    for volume in _told(pod):
        for item in volume["downwardAPI"]["items"]:
            note = NOTE.fullmatch(item["fieldRef"]["fieldPath"])
            assert note, item
            file = folder / pod["metadata"]["name"] / item["path"]
            text = SERVICE.sub(address, pod["metadata"]["annotations"][note[1]])
            if file.exists() and file.read_text() == text:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_name(".scratch")
            scratch.write_text(text)
            scratch.replace(file)


def _told(pod: Object) -> list[Object]:
    return [volume for volume in pod["spec"].get("volumes", ()) if "downwardAPI" in volume]
