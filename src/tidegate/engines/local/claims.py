"""Volume claims as folders: what kfp's CreatePVC and DeletePVC do on a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from tidegate.engines.local.host import Host
from tidegate.errors import StepFailed


def create_claim(parameters: Mapping[str, Any], host: Host, run_id: str) -> str:
    """Make the folder of a claim; return the claim's name.

    Raises:
        StepFailed: neither a name nor a suffix is given, or both.
    """
    name, suffix = parameters.get("pvc_name"), parameters.get("pvc_name_suffix")
    if bool(name) == bool(suffix):
        raise StepFailed("a claim needs either pvc_name or pvc_name_suffix", code="claim-name")
    claim = str(name) if name else f"{run_id}{'' if str(suffix).startswith('-') else '-'}{suffix}"
    host.volume(claim).mkdir(parents=True, exist_ok=True)
    return claim


def delete_claim(parameters: Mapping[str, Any], host: Host) -> None:
    """Remove the folder of a claim, unless the project named that folder itself."""
    claim = str(parameters.get("pvc_name", ""))
    if claim not in host.volumes:
        shutil.rmtree(host.volume(claim), ignore_errors=True)
