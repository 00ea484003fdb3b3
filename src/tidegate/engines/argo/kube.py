"""A real cluster, through the ``kubernetes`` client's configuration and connections.

The client's generated models are not used: objects stay as they are written, and fields that a release of the client
does not know are not lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from yaml import YAMLError

from tidegate.engines.argo.cluster import Action, Change, Kind, Object, kind_of, selector
from tidegate.errors import ClusterError, ConfigError, Conflict, NotFound

OWNER = "tidegate"
STRICT = {"fieldValidation": "Strict"}  # a field that the server does not know is an error, not dropped
CONNECT_SECONDS, READ_SECONDS = 5, 60
PAGE = 500
_DENIED = (401, 403)
NAMED = 10  # contexts in an error
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, YAMLError)  # what a broken kubeconfig raises


def open_cluster(context: str = "") -> KubeCluster:
    """Open the cluster of a kubeconfig's context; inside a pod without kubeconfig, the pod's own cluster.

    Raises:
        ConfigError: no kubeconfig, no such context, or the ``argo`` extra is missing.
    """
    try:
        from kubernetes import client, config
        from urllib3 import Retry
    except ImportError as e:
        raise ConfigError(
            "the Python package kubernetes is not here", hint="pip install 'tidegate[argo]'", code="extra-missing"
        ) from e
    settings = client.Configuration()
    file = os.environ.get("KUBECONFIG") or "~/.kube/config"  # the client looks only once, when it is imported
    try:
        if not context and _in_pod():
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(file, context or None, settings)
    except (config.ConfigException, *_UNREADABLE) as e:
        raise _no_cluster(e, file, context) from e
    settings.retries = Retry(1, redirect=False, backoff_factor=0.2)  # never of what changes something
    return KubeCluster(client.ApiClient(settings))


def _in_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


def _no_cluster(error: Exception, file: str, context: str) -> ConfigError:
    names = _contexts(file)
    found = f"no cluster can be found: {(str(error).splitlines() or [type(error).__name__])[0]}"
    if not names:
        allowed = "A kubeconfig (KUBECONFIG, else ~/.kube/config) with the context of [tool.tidegate.argo] context."
        return ConfigError(found, allowed=allowed, hint="kubectl config get-contexts", code="cluster-config")
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ConfigError(
        f"{file} has no context {context!r}" if context and context not in names else found,
        allowed=f"Its contexts: {', '.join(names[:NAMED])}{more}.",
        hint="context = … in [tool.tidegate.argo], or TIDEGATE_ARGO_CONTEXT; kubectl config get-contexts shows them all",
        code="cluster-config",
    )


def _contexts(file: str) -> list[str]:
    """The names of a kubeconfig's contexts, none where it cannot be read."""
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigMerger

    try:
        merged = KubeConfigMerger(file).config
        return sorted(str(c["name"]) for c in merged.value["contexts"]) if merged else []
    except (ConfigException, *_UNREADABLE):
        return []


class KubeCluster:
    """The API of a cluster as a ``Cluster``.

    Args:
        client: a ``kubernetes.client.ApiClient``: addresses, certificates and tokens are its business.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def address(self) -> str:
        """Where the API server is."""
        return str(self._client.configuration.host)

    def version(self) -> str:
        """See ``Cluster``."""
        return str(self._json("GET", "/version")["gitVersion"])

    def find(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """See ``Cluster``."""
        try:
            return self._json("GET", _path(kind, namespace, name))
        except NotFound:
            return None

    def list(self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None) -> Iterator[Object]:
        """See ``Cluster``; in pages."""
        query = {"limit": str(PAGE), "labelSelector": selector(labels)}
        while True:
            try:
                page = self._json("GET", _path(kind, namespace), query)
            except NotFound:
                return
            yield from ({"apiVersion": kind.api, "kind": kind.name, **item} for item in page["items"])
            if not (more := page["metadata"].get("continue")):
                return
            query["continue"] = more

    def create(self, body: Object) -> Object:
        """See ``Cluster``."""
        return self._json("POST", _place(body), {"fieldManager": OWNER, **STRICT}, body)

    def apply(self, body: Object) -> Object:
        """See ``Cluster``."""
        query = {"fieldManager": OWNER, "force": "true", **STRICT}
        return self._json("PATCH", _place(body, named=True), query, body, "application/apply-patch+yaml")

    def patch(self, kind: Kind, name: str, namespace: str, change: Object) -> Object:
        """See ``Cluster``."""
        query = {"fieldManager": OWNER}
        return self._json("PATCH", _path(kind, namespace, name), query, change, "application/merge-patch+json")

    def delete(self, kind: Kind, name: str, namespace: str = "", *, alone: bool = False) -> None:
        """See ``Cluster``."""
        try:
            query = {"propagationPolicy": "Orphan" if alone else "Background"}
            self._json("DELETE", _path(kind, namespace, name), query)
        except NotFound:
            return

    def watch(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None, *, seconds: int = 60
    ) -> Iterator[Change]:
        """See ``Cluster``."""
        query = {"watch": "true", "timeoutSeconds": str(seconds), "labelSelector": selector(labels)}
        for line in _lines(self._stream(_path(kind, namespace), query, seconds + READ_SECONDS)):
            said = json.loads(line)
            if said["type"] == "ERROR":  # most often 410: what we saw is too old; the next watch begins anew
                return
            yield Change(said["type"], said["object"])

    def log(self, pod: str, namespace: str, container: str, *, follow: bool = False) -> Iterator[bytes]:
        """See ``Cluster``."""
        query = {"container": container, "follow": str(follow).lower()}
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
        return self._stream(path, query, None if follow else READ_SECONDS)

    def may(self, action: Action, account: str = "") -> bool:
        """See ``Cluster``; an access review."""
        kind = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
        spec = {"resourceAttributes": _attributes(action), **(_subject(account) if account else {})}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        said = self._json("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", {}, body)
        return bool(said["status"]["allowed"])

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        type_: str = "",
    ) -> dict[str, Any]:
        from urllib3.exceptions import HTTPError

        answer = self._ask(method, path, query or {}, body, type_ or "application/json", READ_SECONDS)
        try:
            said: dict[str, Any] = json.loads(answer.read())
        except HTTPError as e:
            raise self._unreachable(e) from e
        except ValueError as e:
            raise ClusterError(f"{self.address} answers {path} with something that is no JSON") from e
        return said

    def _stream(self, path: str, query: Mapping[str, str], read_seconds: int | None) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        answer = self._ask("GET", path, query, None, "application/json", read_seconds)
        try:
            yield from answer.stream(1 << 16)
        except HTTPError as e:
            raise self._unreachable(e) from e
        finally:
            answer.close()

    def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: Object | None, type_: str, read: int | None
    ) -> Any:
        """The answer to one request, its body not read yet; what is not 2xx is an error of ours."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        headers = {**self._client.default_headers, "Accept": "application/json", "Content-Type": type_}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self.address}{path}" + (f"?{urlencode({k: v for k, v in query.items() if v})}" if query else "")
        try:
            answer = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                preload_content=False,
                timeout=Timeout(connect=CONNECT_SECONDS, read=read),
            )
            if answer.status < 300:
                return answer
            said = answer.read()
        except HTTPError as e:
            raise self._unreachable(e) from e
        raise self._error(method, path, answer.status, _message(said))

    def _unreachable(self, error: Exception) -> ClusterError:
        return ClusterError(
            f"{self.address} does not answer: {_first(error)}",
            hint="Look at the context and the network: kubectl cluster-info",
            code="cluster-unreachable",
        )

    def _error(self, method: str, path: str, status: int, message: str) -> Exception:
        if status == 404 and "namespaces" in message:
            return NotFound(
                f"{self.address} has no such namespace: {message}",
                allowed="One that is there: kubectl get namespaces",
                hint="namespace = … in [tool.tidegate.argo], or TIDEGATE_ARGO_NAMESPACE",
                code="namespace-missing",
            )
        if status == 404:
            return NotFound(f"the cluster has no such thing: {message}", hint=f"kubectl get --raw {path}")
        if status == 409:
            return Conflict(message, hint="Somebody else wrote first; look at what is there.")
        if status in _DENIED:
            return ClusterError(
                f"{self.address} does not let us: {message}",
                hint=f"kubectl auth whoami; then bind the Role tidegate-submit or ask for the right to {method} {path}",
                code="cluster-denied",
            )
        return ClusterError(f"{self.address} answers {status}: {message}", code="cluster-refused")


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    base = f"/apis/{kind.api}" if kind.group else f"/api/{kind.api}"
    inside = f"/namespaces/{quote(namespace)}" if kind.namespaced and namespace else ""
    return f"{base}{inside}/{kind.plural}" + (f"/{quote(name)}" if name else "")


def _place(body: Object, named: bool = False) -> str:
    meta = body["metadata"]
    return _path(kind_of(body), meta.get("namespace", ""), meta["name"] if named else "")


def _attributes(action: Action) -> dict[str, str]:
    resource, _, part = action.resource.partition("/")
    said = {"verb": action.verb, "group": action.group, "resource": resource, "subresource": part}
    return {**said, "namespace": action.namespace}


def _subject(account: str) -> dict[str, Any]:
    namespace = account.partition(":")[0]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {"user": f"system:serviceaccount:{account}", "groups": groups}


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _message(said: bytes) -> str:
    """What a Status says, else the first line of whatever came."""
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return said.decode("utf-8", "replace").partition("\n")[0][:300]


def _first(error: Exception) -> str:
    error = getattr(error, "reason", None) or error  # of MaxRetryError, which repeats the address
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
