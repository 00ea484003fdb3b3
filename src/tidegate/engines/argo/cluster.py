"""What tidegate asks of a Kubernetes cluster: a handful of verbs on plain objects.

Objects are dictionaries as in a manifest. ``kube.py`` has the real cluster, ``memory.py`` one in memory, which is used
wherever a test needs one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of object: its API (``v1``, ``apps/v1``), name and plural, and whether it lives in a namespace."""

    api: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API's group: '' for the core."""
        return self.api.rpartition("/")[0]


CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
CRON_WORKFLOW = Kind("argoproj.io/v1alpha1", "CronWorkflow", "cronworkflows")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
POD = Kind("v1", "Pod", "pods")
ROLE = Kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
WORKFLOW = Kind("argoproj.io/v1alpha1", "Workflow", "workflows")
WORKFLOW_TEMPLATE = Kind("argoproj.io/v1alpha1", "WorkflowTemplate", "workflowtemplates")

KINDS = {(k.api, k.name): k for k in list(globals().values()) if isinstance(k, Kind)}


NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # of an object that is also a label
_UNFIT = re.compile(r"[^a-z0-9-]+")
PIPELINE_LABEL, RUN_LABEL = "tidegate.dev/pipeline", "tidegate.dev/run"
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"  # Argo's own, on every pod
NODE_ANNOTATION = "workflows.argoproj.io/node-id"  # likewise


def label(text: str, longest: int = 63) -> str:
    """A text as a name or label of Kubernetes, empty where nothing of it can be one."""
    return _UNFIT.sub("-", text.lower()).strip("-")[:longest].strip("-")


@dataclass(frozen=True)
class Action:
    """What somebody may or may not do: ``create`` on ``pods``, ``get`` on ``pods/log`` …; '*' is everything."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group and self.group != "*" else "")


@dataclass(frozen=True)
class Change:
    """One event of a watch: ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object after it (before, when deleted)."""

    type: str
    object: Object


class Cluster(Protocol):
    """A cluster, as somebody who may do something there.

    Every verb raises ``ClusterError`` when the cluster cannot be reached, does not let us, or refuses an object.
    """

    def version(self) -> str:
        """The version of the API server."""

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """Return an object, None where it (or its kind) is not there."""

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> Iterator[Object]:
        """Yield the objects of a kind in a namespace ('' for all) that carry all these labels; none for no such kind."""

    def create(self, body: Object) -> Object:
        """Create an object (``generateName`` too) and return it as it stands; raise ``Conflict`` when it is there."""

    def apply(self, body: Object) -> Object:
        """Make an object what ``body`` says, field by field: server-side apply, as the owner ``tidegate``, by force."""

    def patch(self, kind: Kind, name: str, namespace: str, change: Object) -> Object:
        """Merge ``change`` into an object (RFC 7396) and return it; raise ``NotFound``."""

    def delete(self, kind: Kind, name: str, namespace: str = "", *, alone: bool = False) -> None:
        """Delete an object and, in the background, what it owns (not so when ``alone``); absent is fine."""

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, seconds: int = 60
    ) -> Iterator[Change]:
        """Yield what is there as ``ADDED``, then every change, for about ``seconds``; watch again to go on.

        A watch may end at any moment, and what changed between two watches is seen as the state at the second.
        """

    def log(self, pod: str, namespace: str, container: str, *, follow: bool = False) -> Iterator[bytes]:
        """Yield the log of a container in pieces; with ``follow`` until it ends. Raise ``NotFound`` for no such pod."""

    def may(self, action: Action, account: str = "") -> bool:
        """Whether the service account ``NAMESPACE:NAME`` ('' for ourselves) may do that."""


def kind_of(body: Object) -> Kind:
    """The kind of an object; an unknown one's plural is guessed as Kubernetes does by convention."""
    api, name = body["apiVersion"], body["kind"]
    return KINDS.get((api, name)) or Kind(api, name, f"{name.lower()}s")


def selector(labels: Mapping[str, str] | None) -> str:
    """Labels as a label selector."""
    return ",".join(f"{k}={v}" for k, v in (labels or {}).items())
