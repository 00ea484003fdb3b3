"""A cluster in memory: the whole protocol, with rights worked out from the RBAC objects in it.

Nothing runs in it: whoever plays the controller patches the objects (``patch``), and puts logs in (``logs``).
"""

from __future__ import annotations

import copy
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.engines.argo.cluster import ROLE, ROLE_BINDING, Action, Change, Kind, Object, kind_of
from tidegate.errors import Conflict, NotFound

_Place = tuple[str, str, str, str]
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", False)


class MemoryCluster:
    """A dictionary as a ``Cluster``; safe for threads. We ourselves may do everything.

    Args:
        objects: what is there from the beginning.
    """

    def __init__(self, *objects: Object) -> None:
        self.logs: dict[tuple[str, str, str], bytes] = {}  # (namespace, pod, container)
        self._items: dict[_Place, dict[str, Any]] = {}
        self._applied: dict[_Place, dict[str, Any]] = {}
        self._watches: list[queue.Queue[Change]] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        for body in objects:
            self.create(body)

    def version(self) -> str:
        """See ``Cluster``."""
        return "v0.0.0-memory"

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """See ``Cluster``."""
        with self._lock:
            return copy.deepcopy(self._items.get(_place(kind, namespace, name)))

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> Iterator[Object]:
        """See ``Cluster``; in the order of names."""
        with self._lock:
            found = [copy.deepcopy(body) for _, body in sorted(self._items.items()) if _fits(body, kind, namespace)]
        yield from (body for body in found if _carries(body, labels))

    def create(self, body: Object) -> Object:
        """See ``Cluster``."""
        with self._lock:
            meta = dict(body["metadata"])
            number = next(self._numbers)
            if "name" not in meta:
                meta["name"] = f"{meta['generateName']}{number:05d}"
            kind = kind_of(body)
            if _place(kind, meta.get("namespace", ""), meta["name"]) in self._items:
                raise Conflict(f'{kind.plural} "{meta["name"]}" already exists')
            return self._keep({**body, "metadata": {"uid": f"uid-{number}", **meta}}, "ADDED")

    def apply(self, body: Object) -> Object:
        """See ``Cluster``; fields that were applied before and are not any more are taken away."""
        kind, meta = kind_of(body), body["metadata"]
        place = _place(kind, meta.get("namespace", ""), meta["name"])
        with self._lock:
            before, self._applied[place] = self._applied.get(place, {}), copy.deepcopy(dict(body))
            if place not in self._items:
                return self.create(body)
            return self.patch(kind, meta["name"], meta.get("namespace", ""), _dropped(before, body))

    def patch(self, kind: Kind, name: str, namespace: str, change: Object) -> Object:
        """See ``Cluster``."""
        with self._lock:
            body = self._items.get(_place(kind, namespace, name))
            if body is None:
                raise NotFound(f'{kind.plural} "{name}" not found')
            return self._keep(_merged(body, change), "MODIFIED")

    def delete(self, kind: Kind, name: str, namespace: str = "", *, alone: bool = False) -> None:
        """See ``Cluster``."""
        with self._lock:
            body = self._items.pop(_place(kind, namespace, name), None)
            self._applied.pop(_place(kind, namespace, name), None)
            if body is None:
                return
            self._tell(Change("DELETED", body))
            for owned in [] if alone else [o for o in self._items.values() if _owns(body, o)]:
                self.delete(kind_of(owned), owned["metadata"]["name"], owned["metadata"].get("namespace", ""))

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, seconds: float = 60
    ) -> Iterator[Change]:
        """See ``Cluster``."""
        changes: queue.Queue[Change] = queue.Queue()
        with self._lock:
            there = list(self.list(kind, namespace, labels))
            self._watches.append(changes)
        end = time.monotonic() + seconds
        try:
            yield from (Change("ADDED", body) for body in there)
            while (rest := end - time.monotonic()) > 0:
                change = changes.get(timeout=rest)
                if _fits(change.object, kind, namespace) and _carries(change.object, labels):
                    yield change
        except queue.Empty:
            return
        finally:
            self._watches.remove(changes)

    def log(self, pod: str, namespace: str, container: str, *, follow: bool = False) -> Iterator[bytes]:  # noqa: ARG002
        """See ``Cluster``; what is there now, in one piece, followed or not."""
        try:
            yield self.logs[namespace, pod, container]
        except KeyError:
            raise NotFound(f'pods "{pod}" not found') from None

    def may(self, action: Action, account: str = "") -> bool:
        """See ``Cluster``; by the roles and bindings that are there."""
        return not account or any(_grants(rule, action) for rule in self._rules(account, action.namespace))

    def _rules(self, account: str, namespace: str) -> Iterator[Mapping[str, Any]]:
        bindings = [*self.list(CLUSTER_ROLE_BINDING), *(self.list(ROLE_BINDING, namespace) if namespace else ())]
        for binding in bindings:
            if any(_is(subject, account, binding) for subject in binding.get("subjects", ())):
                of = CLUSTER_ROLE if binding["roleRef"]["kind"] == "ClusterRole" else ROLE
                role = self.find(of, binding["roleRef"]["name"], namespace)
                yield from (role or {}).get("rules", ())

    def _keep(self, body: Mapping[str, Any], change: str) -> Object:
        """Store a new state of an object, tell the watches, and return a copy."""
        kept = copy.deepcopy(dict(body))
        kept["metadata"]["resourceVersion"] = str(next(self._numbers))
        self._items[_place(kind_of(kept), kept["metadata"].get("namespace", ""), kept["metadata"]["name"])] = kept
        self._tell(Change(change, copy.deepcopy(kept)))
        return copy.deepcopy(kept)

    def _tell(self, change: Change) -> None:
        for watch in self._watches:
            watch.put(change)


def _place(kind: Kind, namespace: str, name: str) -> _Place:
    return kind.api, kind.name, namespace if kind.namespaced else "", name


def _fits(body: Object, kind: Kind, namespace: str) -> bool:
    same = (body["apiVersion"], body["kind"]) == (kind.api, kind.name)
    return same and (not namespace or not kind.namespaced or body["metadata"].get("namespace") == namespace)


def _carries(body: Object, labels: Mapping[str, str] | None) -> bool:
    return (labels or {}).items() <= (body["metadata"].get("labels") or {}).items()


def _merged(old: Any, new: Any) -> Any:
    """RFC 7396: members replace members, null removes one."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    kept = {k: v for k, v in old.items() if k not in new}
    return {**kept, **{k: _merged(old.get(k, {}), v) for k, v in new.items() if v is not None}}


def _dropped(before: Any, now: Any) -> Any:
    """What was said before with null for each field that is not said now, to be merged before what is said now."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return now
    return {**now, **{k: _dropped(v, now[k]) if k in now else None for k, v in before.items()}}


def _owns(owner: Object, body: Object) -> bool:
    return owner["metadata"]["uid"] in [o.get("uid") for o in body["metadata"].get("ownerReferences", ())]


def _is(subject: Mapping[str, Any], account: str, binding: Object) -> bool:
    namespace = account.partition(":")[0]
    if subject["kind"] == "Group":
        return subject["name"] in (
            "system:authenticated",
            f"system:serviceaccounts:{namespace}",
            "system:serviceaccounts",
        )
    own = subject.get("namespace") or binding["metadata"].get("namespace", "")
    return subject["kind"] == "ServiceAccount" and f"{own}:{subject['name']}" == account


def _grants(rule: Mapping[str, Any], action: Action) -> bool:
    asked = (("verbs", action.verb), ("resources", action.resource), ("apiGroups", action.group))
    return all("*" in rule.get(key, ()) or word in rule.get(key, ()) for key, word in asked)
