"""A task's container as a pod template: its image, resources and Kubernetes settings, and the launcher around it.

Every field of kfp's KubernetesExecutorConfig has a row in ``_SETTINGS``; one that has none is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.author.command import REGISTRAR
from tidegate.engines.argo.needs import Needs
from tidegate.engines.argo.pod import FOLDER
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.own import own_step, plain
from tidegate.engines.pod.step import MASKED
from tidegate.engines.readable import readable
from tidegate.errors import DefinitionError
from tidegate.ir.placeholder import Placeholder, Template, Text, parse
from tidegate.plan.model import Container, Executor, FinalStatus, Importer, Retry, Task

LAUNCHER, SIDECAR, LAST = (f"tidegate.engines.argo.{name}" for name in ("launcher", "beside", "end"))
BESIDE = "tidegate-beside"
SHIM = f"{FOLDER}/bin/shim"
# An image whose command is a shell or Python has one: that waits until the sidecar has brought the shim, for as long as
# the shim itself would wait for the sidecar, and an init container, a second of the kubelet's, is saved. What a pod
# runs first hears only signals that it asks for: one that ends the pod must not be followed by the command.
# Seconds are the kernel's: an image may have no sleep, and turns of the loop would then be over in no time.
_SHELL = (
    "trap 'exit 143' TERM; read -r t _ < /proc/uptime; end=$((${t%.*}+900)); "
    f"until [ -x {SHIM} ]; do read -r t _ < /proc/uptime; [ ${{t%.*}} -lt $end ] || exit 70; "
    f"sleep 0.05 2>/dev/null || sleep 1 2>/dev/null; done; exec {SHIM}"
)
_PYTHON = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: os._exit(143))\n"
    "for _ in range(18000):\n"
    f"  if os.access('{SHIM}', os.X_OK): os.execv('{SHIM}', ['{SHIM}'])\n"
    "  time.sleep(0.05)\n"
    "sys.exit(70)"
)
AWAIT = {
    **dict.fromkeys(("sh", "/bin/sh", "bash", "/bin/bash"), _SHELL),
    **dict.fromkeys(
        ("python", "python3", "/usr/bin/python3", "/usr/local/bin/python", "/usr/local/bin/python3"), _PYTHON
    ),
}
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
READ_ONLY = {**RESTRICTED, "readOnlyRootFilesystem": True}
MOUNTS: list[dict[str, Any]] = [
    {"name": "tidegate", "mountPath": FOLDER},
    {"name": "tidegate-plan", "mountPath": "/tidegate-plan", "readOnly": True},
    {"name": "tmp", "mountPath": "/tmp"},
]
_CLAIMS = ("argostub/createpvc", "argostub/deletepvc")
_UNITS = {"cpuLimit": ("limits", "cpu", ""), "memoryLimit": ("limits", "memory", "G"),
          "cpuRequest": ("requests", "cpu", ""), "memoryRequest": ("requests", "memory", "G")}  # fmt: skip
_AMOUNTS = {"resourceCpuLimit": ("limits", "cpu"), "resourceMemoryLimit": ("limits", "memory"),
            "resourceCpuRequest": ("requests", "cpu"), "resourceMemoryRequest": ("requests", "memory")}  # fmt: skip


@dataclass
class Parts:
    """What is being put together: the template, its main container, what is patched into the pod."""

    template: dict[str, Any]
    main: dict[str, Any]
    patch: dict[str, Any]
    said: Callable[[str, str], str]  # place and constant of a setting -> the constant, or the tag of an input

    def env(self, entry: Mapping[str, Any]) -> None:
        """Give the command a variable."""
        self.main.setdefault("env", []).append(dict(entry))

    def mount(self, volume: Mapping[str, Any], path: str, **more: Any) -> None:
        """Mount a volume where the command expects it."""
        volumes = self.template.setdefault("volumes", [])
        if volume not in volumes:
            volumes.append(dict(volume))
        self.main.setdefault("volumeMounts", []).append({"name": volume["name"], "mountPath": path, **more})


def pod_template(
    task: Task, executor: Executor, wanted: Needs, names: Mapping[str, str], settings: ArgoSettings, *, arguments: bool
) -> dict[str, Any]:
    """Return the template of a task's pod, without a name.

    Args:
        task: the task.
        executor: what its component runs.
        wanted: the outputs that Argo wants to know.
        names: the template inputs that hold settings which are only known when the task runs, by their places.
        settings: names in the cluster.
        arguments: whether the pipeline has parameters: Argo refuses to name those of a workflow without any.

    Raises:
        DefinitionError: something that cannot be said to Argo.
    """
    inputs = ["step", *dict.fromkeys(names.values()), *(["status"] if _asks(task) else [])]
    template: dict[str, Any] = {"inputs": {"parameters": [{"name": n} for n in inputs]}}
    outputs = {output_name(kind, name): [kind, name, need] for (kind, name), need in wanted.items()}
    if outputs:
        paths = [{"name": f, "valueFrom": {"path": f"{FOLDER}/out/{f}"}} for f in outputs]
        template["outputs"] = {"parameters": paths}
    env = _env(task, outputs, arguments=arguments)
    if isinstance(executor, Importer):
        template["container"] = confined(ours(settings, settings.image, env))
    else:
        _of_container(template, task, executor, names, env, settings)
    if task.retry.times:
        template["retryStrategy"] = retry_strategy(task.retry)
    return template


def output_name(kind: str, name: str) -> str:
    """The name of an output, or of an input, that Argo is told about."""
    plain = all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    text = name if plain else "x" + name.encode().hex()
    return text if kind == "parameter" else f"artifact--{text}"


def _asks(task: Task) -> bool:
    return any(isinstance(s, FinalStatus) for s in task.parameters.values())


def _env(task: Task, outputs: Mapping[str, Any], *, arguments: bool) -> list[dict[str, Any]]:
    found = {"TIDEGATE_STEP": "{{inputs.parameters.step}}", "TIDEGATE_RUN_ID": "{{workflow.name}}"}
    found["TIDEGATE_CREATED"] = "{{workflow.creationTimestamp}}"
    if arguments:
        found["TIDEGATE_ARGUMENTS"] = "{{workflow.parameters}}"
    if outputs:
        found["TIDEGATE_CONTROL"] = json.dumps(outputs, separators=(",", ":"))
    if _asks(task):
        found["TIDEGATE_STATUSES"] = "{{inputs.parameters.status}}"
    if task.retry.times:
        found["TIDEGATE_ATTEMPT"] = "{{retries}}"
    return [{"name": n, "value": v} for n, v in found.items()]


def ours(
    settings: ArgoSettings, image: str, env: list[dict[str, Any]], program: str = LAUNCHER, secret: str = ""
) -> dict[str, Any]:
    """A container with a program of ours in it, which may use the store."""
    return {
        "image": image,
        "command": ["python", "-m", program],
        "env": env,
        "envFrom": [{"secretRef": {"name": secret or settings.store_secret}}],
    }


def _of_container(
    template: dict[str, Any], task: Task, container: Container, names: Mapping[str, str],
    env: list[dict[str, Any]], settings: ArgoSettings,
) -> None:  # fmt: skip
    image = _dynamic(container.image, "image", names)
    if image in _CLAIMS:
        raise DefinitionError(
            f"the task {task.name!r} makes or deletes a volume claim",
            allowed="On Argo claims are made beforehand: the steps' account may not make any.",
            hint="kubectl apply the PersistentVolumeClaim, and name it in mount_pvc.",
            code="argo-claims",
        )
    if own_step(container):
        secret = settings.registrar_secret if REGISTRAR in container.env else settings.store_secret
        main = confined(ours(settings, image, env, secret=secret))
    else:
        waiter = waiting(container)
        main = {
            "image": image,
            "command": [waiter, "-c", AWAIT[waiter]] if waiter else [SHIM],
            "env": [{"name": "HOME", "value": "/tmp"}],
            "securityContext": RESTRICTED,
            "volumeMounts": [*MOUNTS],
        }
        template["sidecars"] = [_beside(settings, env)]
        if not waiter:
            template["initContainers"] = [_install(settings)]
    if resources := _resources(container.resources, names):
        main["resources"] = resources
    template["container"] = main
    with readable():
        _apply(Parts(template, main, {}, lambda place, constant: _said(place, constant, names)), container.kubernetes)
    for beside in template.get("sidecars", ()):
        beside["env"] = [*beside["env"], *_masked(main)]


def waiting(container: Container) -> str:
    """The program by which a command says itself that its image can wait for the shim; empty for none."""
    first = plain(container.command[0]) if container.command else ""
    return first if first in AWAIT else ""


def _masked(main: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The secrets of the command, for the sidecar to take out of its log; under names that mean nothing else."""
    secrets = [e["valueFrom"] for e in main.get("env", ()) if "secretKeyRef" in e.get("valueFrom", {})]
    return [{"name": f"{MASKED}{i}", "valueFrom": value} for i, value in enumerate(secrets)]


def _install(settings: ArgoSettings) -> dict[str, Any]:
    """The container that brings the shim, and that is all it does: nothing starts before it has ended."""
    mounts = [m for m in MOUNTS if m["name"] == "tidegate"]
    return {
        "name": "tidegate-shim", "image": settings.image, "command": ["/opt/tidegate/shim", "install"],
        "securityContext": READ_ONLY, "volumeMounts": mounts,
    }  # fmt: skip


def _beside(settings: ArgoSettings, env: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": BESIDE, **confined(ours(settings, settings.image, env, SIDECAR))}


def confined(container: dict[str, Any]) -> dict[str, Any]:
    """A container of ours with the folders that it needs and no right that it does not."""
    return {**container, "securityContext": READ_ONLY, "volumeMounts": [*MOUNTS]}


def _dynamic(template: Template, place: str, names: Mapping[str, str]) -> str:
    """A text of the pod with the tags of template inputs in the place of kfp's placeholders."""
    if not isinstance(template, Text):
        raise _refused(place, "a placeholder that joins texts or asks whether an input is there")
    return "".join(p if isinstance(p, str) else _tag(p, place, names) for p in template.parts)


def _tag(placeholder: Placeholder, place: str, names: Mapping[str, str]) -> str:
    if placeholder.form != "input_parameter":
        raise _refused(place, f"the placeholder {placeholder.form}")
    return "{{inputs.parameters." + names[f"input.{placeholder.name}"] + "}}"


def _refused(place: str, found: str) -> DefinitionError:
    return DefinitionError(
        f"the field {place!r} of a task holds {found}",
        allowed="Constants, and placeholders of input parameters.",
        code="argo-field",
    )


def _resources(said: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, (kind, resource, unit) in _UNITS.items():
        if said.get(field):
            found.setdefault(kind, {})[resource] = f"{said[field]:g}{unit}"
    for field, (kind, resource) in _AMOUNTS.items():
        if said.get(field):
            found.setdefault(kind, {})[resource] = _dynamic(parse(said[field]), field, names)
    if accelerator := said.get("accelerator"):
        resource, amount = _accelerator(accelerator, names)
        found.setdefault("limits", {})[resource] = amount
    return found


def _accelerator(said: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, str]:
    kind = str(said.get("resourceType") or said.get("type") or "nvidia.com/gpu")
    amount = str(said.get("resourceCount") or said.get("count") or "1")
    if "{{" in kind:
        raise _refused("accelerator.type", "a placeholder")
    return kind, _dynamic(parse(amount), "accelerator.count", names)


def retry_strategy(retry: Retry) -> dict[str, Any]:
    """The retry of a task as Argo has it; every failure is tried again, also a pod that was lost."""
    made: dict[str, Any] = {"limit": str(retry.times), "retryPolicy": "Always"}
    if retry.pause:
        if retry.factor != int(retry.factor):
            raise DefinitionError(
                f"a task's backoff grows by the factor {retry.factor:g}",
                allowed="Argo knows whole factors only.",
                hint=f"set_retry(…, backoff_factor={max(1, round(retry.factor))})",
                code="argo-backoff",
            )
        backoff = {"duration": f"{retry.pause:g}s", "factor": str(int(retry.factor)), "cap": f"{retry.longest:g}s"}
        made["backoff"] = backoff
    return made


def _said(place: str, constant: Any, names: Mapping[str, str]) -> str:
    return "{{inputs.parameters." + names[place] + "}}" if place in names else str(constant)


# ── Kubernetes settings ──────────────────────────────────────────────────────────────────────────────────────────────


def _apply(parts: Parts, config: Mapping[str, Any]) -> None:
    for field, value in config.items():
        if field not in _SETTINGS:
            raise DefinitionError(
                f"the Kubernetes setting {field!r} is not known",
                allowed=f"One of: {', '.join(sorted(_SETTINGS))}.",
                code="argo-setting",
            )
        if value not in (None, [], {}, "", 0, "0"):
            _SETTINGS[field](parts, value)
    if parts.patch:
        parts.template["podSpecPatch"] = json.dumps(parts.patch, sort_keys=True)


def _name(parts: Parts, field: str, index: int, entry: Mapping[str, Any], kind: str) -> str:
    parameter = f"{kind}NameParameter"
    constant = entry.get(parameter, {}).get("runtimeValue", {}).get("constant", entry.get(f"{kind}Name", ""))
    return parts.said(f"{field}.{index}.{parameter}", constant)


def _from_object(kind: str, ref: str) -> Callable[[Parts, Any], None]:
    def apply(parts: Parts, entries: Any) -> None:
        for i, entry in enumerate(entries):
            name = _name(parts, f"{kind}AsEnv", i, entry, kind)
            for pair in entry.get("keyToEnv", ()):
                key = {"name": name, "key": pair[f"{kind}Key"]} | _optional(entry)
                parts.env({"name": pair["envVar"], "valueFrom": {ref: key}})

    return apply


def _optional(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"optional": bool(entry["optional"])} if "optional" in entry else {}


def _object_volume(kind: str, source: str, field: str) -> Callable[[Parts, Any], None]:
    def apply(parts: Parts, entries: Any) -> None:
        for i, entry in enumerate(entries):
            name = _name(parts, f"{kind}AsVolume", i, entry, kind)
            volume = {"name": f"{kind.lower()}-{i}", source: {field: name} | _optional(entry)}
            parts.mount(volume, entry["mountPath"], readOnly=True)

    return apply


def _claims(parts: Parts, entries: Any) -> None:
    for i, entry in enumerate(entries):
        parameter = entry.get("pvcNameParameter", {}).get("runtimeValue", {}).get("constant", entry.get("constant", ""))
        name = parts.said(f"pvcMount.{i}.pvcNameParameter", parameter)
        volume = {"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": name}}
        parts.mount(volume, entry["mountPath"], **({"subPath": entry["subPath"]} if entry.get("subPath") else {}))


def _empty(parts: Parts, entries: Any) -> None:
    for entry in entries:
        size = {"sizeLimit": entry["sizeLimit"]} if entry.get("sizeLimit") else {}
        medium = {"medium": entry["medium"]} if entry.get("medium") else {}
        parts.mount({"name": entry["volumeName"], "emptyDir": {**medium, **size}}, entry["mountPath"])


def _ephemeral(parts: Parts, entries: Any) -> None:
    for entry in entries:
        spec: dict[str, Any] = {
            "accessModes": list(entry.get("accessModes", ["ReadWriteOnce"])),
            "resources": {"requests": {"storage": entry["size"]}},
        }
        if entry.get("storageClassName"):
            spec["storageClassName"] = entry["storageClassName"]
        template = {"spec": spec} | ({"metadata": dict(entry["metadata"])} if entry.get("metadata") else {})
        parts.mount({"name": entry["volumeName"], "ephemeral": {"volumeClaimTemplate": template}}, entry["mountPath"])


def _shared_memory(parts: Parts, said: Any) -> None:
    size = {"sizeLimit": said["size"]} if said.get("size") else {}
    parts.mount({"name": said.get("volumeName") or "shm", "emptyDir": {"medium": "Memory", **size}}, "/dev/shm")


def _metadata(parts: Parts, said: Any) -> None:
    parts.template["metadata"] = {k: dict(said[k]) for k in ("labels", "annotations") if said.get(k)}


def _field_paths(parts: Parts, entries: Any) -> None:
    for entry in entries:
        parts.env({"name": entry["name"], "valueFrom": {"fieldRef": {"fieldPath": entry["fieldPath"]}}})


def _node_selector(parts: Parts, said: Any) -> None:
    if "nodeSelectorJson" in said:
        _json_patch(parts, "nodeSelector", "nodeSelector.nodeSelectorJson", said["nodeSelectorJson"])
    elif said.get("labels"):
        parts.template["nodeSelector"] = dict(said["labels"])


def _tolerations(parts: Parts, entries: Any) -> None:
    found = []
    for i, entry in enumerate(entries):
        if "tolerationJson" in entry:
            constant = _constant_json(entry["tolerationJson"], f"tolerations.{i}.tolerationJson")
            found += constant if isinstance(constant, list) else [constant]
        else:
            seconds = {"tolerationSeconds": int(entry["tolerationSeconds"])} if "tolerationSeconds" in entry else {}
            found.append(
                {k: v for k, v in entry.items() if k in ("key", "operator", "value", "effect") and v} | seconds
            )
    parts.template["tolerations"] = found


def _json_patch(parts: Parts, field: str, place: str, said: Any) -> None:
    parts.patch[field] = _constant_json(said, place)


def _constant_json(said: Any, place: str) -> Any:
    constant = said.get("runtimeValue", {}).get("constant") if isinstance(said, Mapping) else None
    if constant is None:
        raise _refused(place, "a value that is only known when the run runs")
    return json.loads(constant) if isinstance(constant, str) else constant


def _node_affinity(parts: Parts, entries: Any) -> None:
    for i, entry in enumerate(entries):
        if "nodeAffinityJson" in entry:
            made = _constant_json(entry["nodeAffinityJson"], f"nodeAffinity.{i}.nodeAffinityJson")
            _affinity(parts).setdefault("nodeAffinity", {}).update(made)
            continue
        term = {k: [dict(e) for e in entry[k]] for k in ("matchExpressions", "matchFields") if entry.get(k)}
        affinity = _affinity(parts).setdefault("nodeAffinity", {})
        if entry.get("weight"):
            affinity.setdefault("preferredDuringSchedulingIgnoredDuringExecution", []).append(
                {"weight": int(entry["weight"]), "preference": term}
            )
        else:
            required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []})
            required["nodeSelectorTerms"].append(term)


def _pod_affinity(parts: Parts, entries: Any) -> None:
    for entry in entries:
        field = "podAntiAffinity" if entry.get("anti") else "podAffinity"
        term: dict[str, Any] = {"topologyKey": entry.get("topologyKey", "")}
        expressions = [dict(e) for e in entry.get("matchPodExpressions", ())]
        selector = {"matchExpressions": expressions, "matchLabels": dict(entry.get("matchPodLabels", {}))}
        term["labelSelector"] = {k: v for k, v in selector.items() if v}
        if entry.get("namespaces"):
            term["namespaces"] = list(entry["namespaces"])
        affinity = _affinity(parts).setdefault(field, {})
        if entry.get("weight"):
            affinity.setdefault("preferredDuringSchedulingIgnoredDuringExecution", []).append(
                {"weight": int(entry["weight"]), "podAffinityTerm": term}
            )
        else:
            affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", []).append(term)


def _affinity(parts: Parts) -> dict[str, Any]:
    made: dict[str, Any] = parts.template.setdefault("affinity", {})
    return made


def _security(parts: Parts, said: Any) -> None:
    fields = {k: int(said[k]) for k in ("runAsUser", "runAsGroup") if k in said}
    more = {"runAsNonRoot": bool(said["runAsNonRoot"])} if "runAsNonRoot" in said else {}
    parts.main["securityContext"] = {**parts.main["securityContext"], **fields, **more}


def _pull_policy(parts: Parts, said: Any) -> None:
    parts.main["imagePullPolicy"] = said


def _deadline(parts: Parts, said: Any) -> None:
    parts.template["activeDeadlineSeconds"] = int(said)


def _pull_secrets(parts: Parts, entries: Any) -> None:
    names = [_name(parts, "imagePullSecret", i, e, "secret") for i, e in enumerate(entries)]
    parts.patch["imagePullSecrets"] = [{"name": n} for n in names]


_SETTINGS: dict[str, Callable[[Parts, Any], None]] = {
    "secretAsEnv": _from_object("secret", "secretKeyRef"),
    "configMapAsEnv": _from_object("configMap", "configMapKeyRef"),
    "secretAsVolume": _object_volume("secret", "secret", "secretName"),
    "configMapAsVolume": _object_volume("configMap", "configMap", "name"),
    "pvcMount": _claims,
    "emptyDirMounts": _empty,
    "genericEphemeralVolume": _ephemeral,
    "enabledSharedMemory": _shared_memory,
    "fieldPathAsEnv": _field_paths,
    "nodeSelector": _node_selector,
    "tolerations": _tolerations,
    "nodeAffinity": _node_affinity,
    "podAffinity": _pod_affinity,
    "podMetadata": _metadata,
    "imagePullSecret": _pull_secrets,
    "imagePullPolicy": _pull_policy,
    "activeDeadlineSeconds": _deadline,
    "securityContext": _security,
}
