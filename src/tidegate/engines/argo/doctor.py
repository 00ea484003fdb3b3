"""What runs on Argo need of a cluster, checked: what was found, and what to type where something is missing.

A check is a generator in ``CHECKS``, or, where it is about what is in the namespace, in ``INSIDE``; it reads the cluster
and changes nothing in it. What we may not look at is said to be unknown, which is no failure: ``tidegate-submit`` may
neither read Secrets nor ask about other accounts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tidegate.engines.argo.access import Access, Tried
from tidegate.engines.argo.cluster import (
    CRD,
    NAMESPACE,
    NETWORK_POLICY,
    SECRET,
    SERVICE_ACCOUNT,
    WORKFLOW_LABEL,
    Action,
    Cluster,
)
from tidegate.engines.argo.controller import OLDEST, Controller, find_controllers
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.errors import ClusterError, ConfigError, StoreError
from tidegate.store.open import OBJECT_SCHEMES

APPLY = "kubectl apply -k manifests/argo"
_ADMIN = "not checked: let somebody who may look run tidegate doctor --engine argo"
_OWN_SUBMIT = f"{APPLY}, unless people and CI have accounts of their own"
_OVERLAY = "then kubectl apply -k an overlay of manifests/argo (docs/argo.md)"
_ELSEWHERE = "[tool.tidegate.argo] namespace = one of kubectl get namespaces"
_POLICIES = "attach the policies of manifests/argo/store"
SUBMIT_ACCOUNT = "tidegate-submit"
STEP_LABELS = {WORKFLOW_LABEL: "", "app.kubernetes.io/managed-by": "tidegate"}
_ARGO = "argoproj.io"
_CRDS = ("workflows", "workflowtemplates", "cronworkflows", "workflowtaskresults")
_RESULTS = (Action("create", "workflowtaskresults", _ARGO), Action("patch", "workflowtaskresults", _ARGO))
# what nobody inside a step's pod may do: each is a way to more rights, or to another run's data
_HARM = (
    Action("*", "*", "*"),
    Action("get", "secrets"),
    Action("list", "secrets"),
    Action("create", "pods"),
    Action("create", "pods/exec"),
    Action("get", "pods/log"),
    Action("get", "configmaps"),
    Action("create", "serviceaccounts/token"),
    Action("create", "rolebindings", "rbac.authorization.k8s.io"),
    Action("create", "workflows", _ARGO),
    Action("list", "workflows", _ARGO),
    Action("patch", "workflows", _ARGO),
    Action("create", "workflowtemplates", _ARGO),
    Action("create", "cronworkflows", _ARGO),
    Action("list", "workflowtaskresults", _ARGO),
)
_SUBMIT = (
    *(Action(v, "workflows", _ARGO) for v in ("create", "patch", "delete", "watch")),
    *(
        Action(v, f"{kind}workflow{s}", _ARGO)
        for kind, s in (("cron", "s"), ("", "templates"))
        for v in ("create", "patch")
    ),
    Action("get", "pods/log"),
    Action("watch", "pods"),
)
_KEYS = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}


class Finding(NamedTuple):
    """One line: right, wrong or (None) unknown; what was found; what to type."""

    ok: bool | None
    what: str
    advice: str = ""


@dataclass(frozen=True)
class Ward:
    """What is examined: a cluster, the names in it, and how a Secret's credentials are tried."""

    cluster: Cluster
    settings: ArgoSettings
    access: Callable[[Mapping[str, str]], Access]

    @property
    def namespace(self) -> str:
        """Where runs go."""
        return self.settings.namespace

    def account(self, name: str) -> str:
        """A service account of the namespace, as ``Cluster.may`` wants it."""
        return f"{self.namespace}:{name}"

    def here(self, action: Action) -> Action:
        """An action, in the namespace."""
        return Action(action.verb, action.resource, action.group, self.namespace)


Check = Callable[[Ward], Iterator[Finding]]


def examine(ward: Ward) -> Iterator[Finding]:
    """Yield what every check finds.

    Only the first when the cluster does not answer at all, and nothing of the namespace where there is none: everything
    in it would be missing too.
    """
    try:
        yield Finding(True, f"cluster: Kubernetes {ward.cluster.version()} answers")
    except ClusterError as e:
        yield Finding(False, f"cluster: {e.found}", e.hint)
        return
    yield from _run(ward, CHECKS)
    if not _is_absent(ward):
        yield from _run(ward, INSIDE)


def _run(ward: Ward, checks: Mapping[str, Check]) -> Iterator[Finding]:
    for what, check in checks.items():
        try:
            yield from check(ward)
        except ClusterError as e:
            unknown = e.code == "cluster-denied"
            yield Finding(None if unknown else False, f"{what}: {e.found}", _ADMIN if unknown else e.hint)


def _is_absent(ward: Ward) -> bool:
    """Whether we know that there is no namespace."""
    try:
        return ward.cluster.find(NAMESPACE, ward.namespace) is None
    except ClusterError:
        return False


def _crds(ward: Ward) -> Iterator[Finding]:
    missing = [n for n in _CRDS if ward.cluster.find(CRD, f"{n}.{_ARGO}") is None]
    what = f"Argo Workflows: {'no ' + ', '.join(missing) if missing else 'every kind is there'}"
    yield Finding(not missing, what, "install Argo Workflows 4.0.7 or later, with the full CRDs" if missing else "")


def _controller(ward: Ward) -> Iterator[Finding]:
    found = [c for c in find_controllers(ward.cluster) if c.serves(ward.namespace)]
    if not found:
        advice = "install Argo Workflows; or, where it is no Deployment, look at its version yourself: 4.0.7 or later"
        yield Finding(None, "controller: no Deployment is one that serves this namespace", advice)
    for controller in found:
        yield _age(controller)
        yield _pace(controller)


def _age(controller: Controller) -> Finding:
    version = controller.version
    said = ".".join(map(str, version))
    if not version:
        advice = "4.0.7 or later is needed (4.0.3 to 4.0.6 hang): ask who installed it"
        return Finding(None, f"controller: the version of {controller.images[0]} cannot be known", advice)
    if version < OLDEST:
        why = "hangs when an output of a skipped task is read" if version >= (4, 0, 3) else "is too old"
        return Finding(False, f"controller: Argo Workflows {said} {why}", "upgrade it to 4.0.7 or later")
    return Finding(True, f"controller: Argo Workflows {said}")


def _pace(controller: Controller) -> Finding:
    said = controller.env.get("DEFAULT_REQUEUE_TIME", "")
    if said:
        return Finding(True, f"controller: looks again after {said} (DEFAULT_REQUEUE_TIME)")
    advice = f"for quick steps: kubectl set env {controller.place} DEFAULT_REQUEUE_TIME=1s"
    return Finding(True, "controller: looks again after 10 s (the default), so no step is over sooner", advice)


def _namespace(ward: Ward) -> Iterator[Finding]:
    found = ward.cluster.find(NAMESPACE, ward.namespace)
    if found is None:
        ours, other = ward.namespace == ArgoSettings.namespace, f"kubectl create namespace {ward.namespace}, {_OVERLAY}"
        what = f"namespace: {ward.namespace} does not exist, so nothing in it was checked"
        yield Finding(False, what, f"{APPLY if ours else other}; or {_ELSEWHERE}")
        return
    level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce", "")
    label = f"kubectl label namespace {ward.namespace} pod-security.kubernetes.io/enforce=restricted --overwrite"
    what = f"namespace: {ward.namespace} enforces the Pod Security level {level or 'privileged (none is set)'}"
    yield Finding(level in ("restricted", "baseline"), what, "" if level == "restricted" else label)


def _accounts(ward: Ward) -> Iterator[Finding]:
    for name in (ward.settings.service_account, ward.settings.executor_account):
        yield _account(ward, name)
    if ward.cluster.find(SERVICE_ACCOUNT, SUBMIT_ACCOUNT, ward.namespace) is None:
        yield Finding(None, f"account: there is no {SUBMIT_ACCOUNT}", _OWN_SUBMIT)


def _account(ward: Ward, name: str) -> Finding:
    found = ward.cluster.find(SERVICE_ACCOUNT, name, ward.namespace)
    if found is None:
        return Finding(False, f"account: there is no {name}", APPLY)
    if found.get("automountServiceAccountToken") is False:
        return Finding(True, f"account: {name}, its token is not mounted by itself")
    patch = "-p '{\"automountServiceAccountToken\": false}'"
    advice = f"kubectl patch -n {ward.namespace} serviceaccount {name} {patch}"
    return Finding(False, f"account: every pod of {name} is given its token", advice)


def _run_rights(ward: Ward) -> Iterator[Finding]:
    yield _no_rights(ward, ward.settings.service_account, (*_HARM, *_RESULTS), "nothing of what was asked")


def _executor_rights(ward: Ward) -> Iterator[Finding]:
    name = ward.settings.executor_account
    lacks = [a for a in _RESULTS if not ward.cluster.may(ward.here(a), ward.account(name))]
    what = f"rights: {name} may not {_words(lacks)}" if lacks else f"rights: {name} may create and patch task results"
    yield Finding(not lacks, what, APPLY if lacks else "")
    yield _no_rights(ward, name, _HARM, "nothing else of what was asked")


def _no_rights(ward: Ward, name: str, actions: tuple[Action, ...], none: str) -> Finding:
    may = [a for a in actions if ward.cluster.may(ward.here(a), ward.account(name))]
    if not may:
        return Finding(True, f"rights: {name} may do {none} ({len(actions)} actions)")
    advice = f"find the binding and remove it: kubectl get rolebindings -n {ward.namespace} -o wide | grep {name}"
    return Finding(False, f"rights: {name} may {_words(may)}", advice)


def _own_rights(ward: Ward) -> Iterator[Finding]:
    lacks = [a for a in _SUBMIT if not ward.cluster.may(ward.here(a))]
    what = f"rights: you may not {_words(lacks)}" if lacks else "rights: you may submit, watch and end runs"
    bind = f"kubectl create rolebinding NAME -n {ward.namespace} --role {SUBMIT_ACCOUNT} --user YOU"
    yield Finding(not lacks, what, bind if lacks else "")


def _words(actions: list[Action]) -> str:
    said = ["do everything" if a.resource == "*" else str(a) for a in actions[:4]]
    return ", ".join(said) + (f" and {len(actions) - 4} more" if len(actions) > 4 else "")


def _token(ward: Ward) -> Iterator[Finding]:
    account = ward.settings.executor_account
    name = f"{account}.service-account-token"
    found = ward.cluster.find(SECRET, name, ward.namespace)
    if found is None:
        yield Finding(False, f"token: there is no Secret {name}, Argo's executor cannot report", APPLY)
        return
    of = (found["metadata"].get("annotations") or {}).get("kubernetes.io/service-account.name")
    right = found.get("type") == "kubernetes.io/service-account-token" and of == account
    filled = bool((found.get("data") or {}).get("token"))
    again = f"kubectl delete secret -n {ward.namespace} {name}; {APPLY}"
    what = f"is of {account}" if right and filled else "has no token" if right else f"is no token of {account}"
    yield Finding(right and filled, f"token: {name} {what}", "" if right and filled else again)


def _stores(ward: Ward) -> Iterator[Finding]:
    steps, registrar = (_values(ward, n) for n in (ward.settings.store_secret, ward.settings.registrar_secret))
    for name, values in ((ward.settings.store_secret, steps), (ward.settings.registrar_secret, registrar)):
        yield _shape(ward, name, values)
    if not _whole(steps) or not _whole(registrar):
        return
    yield _different(steps, registrar)
    yield from _try(ward, ward.settings.store_secret, steps, _steps_access)
    yield from _try(ward, ward.settings.registrar_secret, registrar, _registrar_access)


def _values(ward: Ward, name: str) -> dict[str, str] | None:
    found = ward.cluster.find(SECRET, name, ward.namespace)
    if found is None:
        return None
    return {k: base64.b64decode(v).decode("utf-8", "replace") for k, v in (found.get("data") or {}).items()}


def _missing(values: Mapping[str, str]) -> list[str]:
    scheme = urlsplit(values.get("TIDEGATE_STORE", "")).scheme
    return [k for k in ("TIDEGATE_STORE", *_KEYS.get(scheme, ())) if not values.get(k)]


def _whole(values: Mapping[str, str] | None) -> bool:
    return values is not None and not _missing(values) and _in_a_bucket(values)


def _in_a_bucket(values: Mapping[str, str]) -> bool:
    return urlsplit(values["TIDEGATE_STORE"]).scheme in OBJECT_SCHEMES


def _shape(ward: Ward, name: str, values: Mapping[str, str] | None) -> Finding:
    make = f"kubectl create secret generic {name} -n {ward.namespace} --from-env-file=FILE"
    if values is None:
        return Finding(False, f"store: there is no Secret {name}", f"{make} (docs/argo.md, the two Secrets)")
    again = f"kubectl delete secret {name} -n {ward.namespace}; {make}"
    if missing := _missing(values):
        return Finding(False, f"store: the Secret {name} lacks {', '.join(missing)}", again)
    if not _in_a_bucket(values):
        allowed = ", ".join(f"{s}://" for s in OBJECT_SCHEMES)
        return Finding(
            False, f"store: {name} names {values['TIDEGATE_STORE']}, which pods do not share", f"{allowed}; {again}"
        )
    return Finding(True, f"store: the Secret {name} names {values['TIDEGATE_STORE']}")


def _different(steps: Mapping[str, str] | None, registrar: Mapping[str, str] | None) -> Finding:
    steps, registrar = steps or {}, registrar or {}
    if steps["TIDEGATE_STORE"] != registrar["TIDEGATE_STORE"]:
        return Finding(False, "store: the two Secrets name two stores", "make both with the same TIDEGATE_STORE")
    same = [k for k in steps if k.endswith("ACCESS_KEY_ID") and steps[k] == registrar.get(k)]
    advice = "make a user of its own for the registrar (docs/argo.md, the store)" if same else ""
    what = "store: every step has the registrar's credentials" if same else "store: steps and registrar are two users"
    return Finding(not same, what, advice)


def _try(
    ward: Ward, name: str, values: Mapping[str, str] | None, tries: Callable[[Access], Iterator[Finding]]
) -> Iterator[Finding]:
    try:
        for ok, what, advice in tries(ward.access(values or {})):
            yield Finding(ok, f"store: {name} {what}", advice)
    except (StoreError, ConfigError) as e:
        advice = "give the address it has from here: tidegate doctor --engine argo --endpoint URL"
        yield Finding(None, f"store: {name} could not be tried: {e.found}", advice)


def _steps_access(access: Access) -> Iterator[Finding]:
    works = access.works()
    yield _must(works, "works below probe/", "does not work below probe/")
    if works.allowed:
        yield _must_not(access.intrudes(), "cannot write the ledger", "CAN WRITE THE LEDGER")
        yield _must_not(access.deletes(), "cannot delete from the ledger", "CAN DELETE FROM THE LEDGER")


def _registrar_access(access: Access) -> Iterator[Finding]:
    works = access.works()
    yield _must(works, "works below probe/", "does not work below probe/")
    if works.allowed:
        yield _must(access.appends(), "may append to the ledger", "may not append to the ledger")
        yield _must_not(access.deletes(), "cannot delete from the ledger", "CAN DELETE FROM THE LEDGER")


def _must(tried: Tried, right: str, wrong: str) -> Finding:
    if tried.allowed is None:
        return Finding(None, f"perhaps {right}: {tried.found}")
    return Finding(
        tried.allowed, right if tried.allowed else f"{wrong}: {tried.found}", "" if tried.allowed else _POLICIES
    )


def _must_not(tried: Tried, right: str, wrong: str) -> Finding:
    return Finding(
        not tried.allowed, f"{wrong}: {tried.found}" if tried.allowed else right, _POLICIES if tried.allowed else ""
    )


def _network(ward: Ward) -> Iterator[Finding]:
    policies = [p for p in ward.cluster.list(NETWORK_POLICY, ward.namespace) if _selects(p["spec"].get("podSelector"))]
    for way in ("Ingress", "Egress"):
        named = [p["metadata"]["name"] for p in policies if way in p["spec"].get("policyTypes", ("Ingress",))]
        what = f"limited by {', '.join(named)}" if named else "limited by no NetworkPolicy"
        advice = "whether your network plugin enforces it cannot be seen from here" if way == "Egress" else ""
        yield Finding(bool(named), f"network: {way.lower()} of steps is {what}", advice if named else APPLY)


def _selects(selector: Mapping[str, Any] | None) -> bool:
    """Whether a label selector selects the pods of steps, as far as Argo's label and ours can tell."""
    selector = selector or {}
    words = all(STEP_LABELS.get(k) == v for k, v in (selector.get("matchLabels") or {}).items())
    return words and all(_holds(e) for e in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any]) -> bool:
    there = expression["key"] in STEP_LABELS
    held = {"Exists": there, "DoesNotExist": not there, "NotIn": not there}
    return held.get(expression["operator"], STEP_LABELS.get(expression["key"]) in expression.get("values", ()))


def _image(ward: Ward) -> Iterator[Finding]:
    image = ward.settings.image
    if not image:
        yield Finding(
            None, "image: no launcher image is set", '[tool.tidegate.argo] image = "REGISTRY/tidegate@sha256:…"'
        )
    else:
        pinned = "@sha256:" in image
        yield Finding(pinned, f"image: {image}", "" if pinned else "name it by digest: a tag may move under a run")


CHECKS: Mapping[str, Check] = {
    "Argo Workflows": _crds,
    "controller": _controller,
    "image": _image,
    "namespace": _namespace,
}
INSIDE: Mapping[str, Check] = {
    "accounts": _accounts,
    "rights of steps": _run_rights,
    "rights of the executor": _executor_rights,
    "your rights": _own_rights,
    "token": _token,
    "store": _stores,
    "network": _network,
}
