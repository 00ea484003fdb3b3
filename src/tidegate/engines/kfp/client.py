"""A real KFP backend, through kfp's own client: its configuration, contexts and logins are those of that client."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tidegate.engines.kfp.backend import BackendRun, Detail, Recurrence, Recurring, Start, Version
from tidegate.engines.kfp.settings import KfpSettings, read_settings
from tidegate.errors import ClusterError, ConfigError, Conflict, NotFound
from tidegate.project import Project

TOKEN, ENDPOINT = "TIDEGATE_KFP_TOKEN", "KF_PIPELINES_ENDPOINT"
TIMEOUT = 30.0  # seconds for one answer; kfp's client waits for ever
PAGE = 100
_DENIED = {
    302: "sends us to a login page",
    401: "does not know us (the token is missing or has expired)",
    403: "does not let us",
}


def reach(project: Project) -> tuple[KfpBackend, KfpSettings]:
    """Reach the backend of a project; return it with the project's settings; raise as ``open_backend``."""
    settings = read_settings(project)
    return open_backend(settings), settings


def open_backend(settings: KfpSettings) -> KfpBackend:
    """Reach the backend of a project's settings.

    Raises:
        ConfigError: kfp is not installed, or nothing says where the backend is.
        ClusterError: it cannot be reached.
    """
    try:
        import kfp
        import urllib3
    except ImportError as e:
        raise ConfigError(
            "kfp is not installed", allowed="The extra `kfp`.", hint="pip install 'tidegate[kfp]'", code="extra-missing"
        ) from e
    try:
        with _told(settings.host), _quiet():
            client = kfp.Client(
                host=settings.host or None,
                namespace=settings.namespace or "kubeflow",
                existing_token=os.environ.get(TOKEN) or None,
                ui_host=settings.ui or None,
            )
    except ClusterError as e:
        raise (e if settings.host or os.environ.get(ENDPOINT) else _nowhere()) from e
    if client._existing_config.host in ("", "http://localhost"):  # kfp says nothing where it found nothing
        raise _nowhere()
    pool = client._run_api.api_client.rest_client.pool_manager
    pool.connection_pool_kw |= {"timeout": urllib3.Timeout(TIMEOUT), "retries": False}
    return KfpBackend(client, settings)


def _nowhere() -> ConfigError:
    return ConfigError(
        "nothing says where Kubeflow Pipelines is",
        allowed=f"[tool.tidegate.kfp] host, {ENDPOINT}, or a context of kfp.",
        hint="TIDEGATE_KFP_HOST=http://127.0.0.1:8888, after kubectl -n kubeflow port-forward svc/ml-pipeline 8888",
        code="kfp-host",
    )


class KfpBackend:
    """The verbs of ``Backend`` in the words of kfp's client and its generated API."""

    def __init__(self, client: Any, settings: KfpSettings) -> None:
        self._client, self._settings = client, settings
        self.host = str(client._existing_config.host)

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, which is made where it is not there."""
        with self._asked():
            namespace = self._settings.namespace or None
            return str(self._client.create_experiment(name, namespace=namespace).experiment_id)

    def find_experiment(self, name: str) -> str | None:
        """Return the id of an experiment, None where it is not there."""
        with self._asked():
            found = self._client.list_experiments(filter=_named(name), namespace=self._settings.namespace or None)
        return next((str(e.experiment_id) for e in found.experiments or ()), None)

    def version(self) -> str:
        """The version of the server, empty where it does not tell."""
        with self._asked():
            answer = self._client._healthz_api.healthz_service_get_healthz(_preload_content=False)
            return str(json.loads(answer.data).get("tag_name") or "")  # not in the model of kfp's client

    def find_version(self, pipeline: str, prefix: str) -> Version | None:
        """Return the newest version of a pipeline whose name begins so."""
        with self._asked():
            pipeline_id = self._pipeline(pipeline)
            if not pipeline_id:
                return None
            found = self._pages(
                lambda token: self._client.list_pipeline_versions(
                    pipeline_id, page_token=token, page_size=PAGE, sort_by="created_at desc"
                ),
                "pipeline_versions",
            )
            said = next((v for v in found if (v.display_name or "").startswith(prefix)), None)
            return Version(pipeline_id, said.pipeline_version_id, said.display_name) if said else None

    def upload(self, pipeline: str, name: str, package: str, description: str = "") -> Version:
        """Make a version of a pipeline, and the pipeline where it is not there."""
        with self._asked(), tempfile.TemporaryDirectory(prefix="tidegate-kfp-") as folder:
            file = Path(folder) / "pipeline.yaml"
            file.write_text(package)
            pipeline_id = self._pipeline(pipeline)
            if not pipeline_id:
                pipeline_id = self._client._pipelines_api.pipeline_service_create_pipeline(
                    {"display_name": pipeline, "namespace": self._settings.namespace or None}
                ).pipeline_id
            made = self._client.upload_pipeline_version(
                str(file), name, pipeline_id=pipeline_id, description=description
            )
            return Version(pipeline_id, made.pipeline_version_id, name)

    def _pipeline(self, name: str) -> str:
        """The id of a pipeline of our namespace, empty where there is none."""
        found = self._client.list_pipelines(filter=_named(name), namespace=self._settings.namespace or None).pipelines
        return str(found[0].pipeline_id) if found else ""

    def start(self, start: Start) -> BackendRun:
        """Start a run."""
        with self._asked():
            made = self._client.run_pipeline(
                start.experiment,
                start.name,
                params=dict(start.parameters),
                pipeline_id=start.version.pipeline_id,
                version_id=start.version.id,
                service_account=start.service_account or None,
            )
            return _run(made)

    def find_run(self, experiment: str, name: str) -> BackendRun | None:
        """Return the newest run of this name in an experiment."""
        with self._asked():
            found = self._client.list_runs(
                experiment_id=experiment, page_size=1, sort_by="created_at desc", filter=_named(name)
            )
        return next(map(_run, found.runs or ()), None)

    def run(self, run_id: str) -> BackendRun:
        """Return a run with its details."""
        with self._asked():
            return _run(self._client.get_run(run_id))

    def terminate(self, run_id: str) -> None:
        """End a run now."""
        with self._asked():
            self._client.terminate_run(run_id)

    def retry(self, run_id: str) -> None:
        """Go on with a run that failed."""
        with self._asked():
            self._client._run_api.run_service_retry_run(run_id)

    def runs(self, schedule: str, limit: int) -> Iterator[BackendRun]:
        """Yield the newest runs of a recurring run first."""
        with self._asked():
            pages = self._pages(
                lambda token: self._client.list_runs(
                    page_token=token, page_size=min(limit, PAGE), sort_by="created_at desc",
                    filter=_equal("recurring_run_id", schedule), namespace=self._settings.namespace or None,
                ),
                "runs",
            )  # fmt: skip
            found = [*islice(pages, limit)]
        yield from map(_run, found)

    def recurring(self, experiment: str) -> Iterator[Recurring]:
        """Yield the recurring runs of an experiment."""
        with self._asked():
            found = [
                *self._pages(
                    lambda token: self._client.list_recurring_runs(
                        page_token=token, page_size=PAGE, experiment_id=experiment
                    ),
                    "recurring_runs",
                )
            ]
        yield from map(_recurring, found)

    def recur(self, wanted: Recurring) -> Recurring:
        """Make a recurring run."""
        when = wanted.when
        with self._asked():
            made = self._client.create_recurring_run(
                wanted.experiment,
                wanted.name,
                description=wanted.description,
                cron_expression=when.cron or None,
                interval_second=when.every or None,
                max_concurrency=when.concurrency,
                no_catchup=not when.catch_up,
                params=dict(wanted.parameters),
                pipeline_id=wanted.version.pipeline_id,
                version_id=wanted.version.id,
                enabled=wanted.enabled,
                service_account=wanted.service_account or None,
            )
        return _recurring(made)

    def enable(self, recurring_id: str, enabled: bool) -> None:
        """Let a recurring run start runs, or not."""
        with self._asked():
            act = self._client.enable_recurring_run if enabled else self._client.disable_recurring_run
            act(recurring_id)

    def remove(self, recurring_id: str) -> None:
        """Delete a recurring run; absent is fine."""
        with contextlib.suppress(NotFound), self._asked():
            self._client.delete_recurring_run(recurring_id)

    def _pages(self, page: Any, field: str) -> Iterator[Any]:
        token = ""
        while True:
            found = page(token)
            yield from getattr(found, field) or ()
            if not (token := found.next_page_token or ""):
                return

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        with _told(self.host), _quiet():
            yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """kfp's client prints links, warns of itself and logs whole tracebacks."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _told(host: str) -> Iterator[None]:
    """Say in our words what the API, or the way to it, says."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as e:
        raise _refused(host, e.status, e.body or e.reason or "") from e
    except (urllib3.exceptions.HTTPError, OSError, TimeoutError) as e:
        raise ClusterError(
            f"Kubeflow Pipelines at {host or 'its address'} cannot be reached: {_reason(e)}",
            allowed="[tool.tidegate.kfp] host, or TIDEGATE_KFP_HOST: the address of its API, as kfp.Client has it.",
            hint="kubectl -n kubeflow port-forward svc/ml-pipeline 8888, if it is reached that way",
            code="kfp-unreachable",
        ) from e


def _reason(error: Exception) -> str:
    """The innermost reason: urllib3 says it in four layers."""
    said = getattr(error, "reason", None) or error
    return _short(str(said).rpartition("): ")[2] or type(said).__name__)


def _refused(host: str, status: int, body: str) -> Exception:
    said = _short(_message(body))
    if status == 404:
        return NotFound(f"Kubeflow Pipelines does not know it: {said}", code="kfp-not-found")
    if status == 409:
        return Conflict(f"Kubeflow Pipelines has it already: {said}")
    if status in _DENIED:
        return ClusterError(
            f"Kubeflow Pipelines at {host} {_DENIED[status]}: {said}",
            allowed="A login of kfp's client, or a token.",
            hint=f"{TOKEN}=$(…), or log in as kfp does",
            code="cluster-denied",
        )
    return ClusterError(f"Kubeflow Pipelines answered {status}: {said}", code="kfp-refused")


def _message(body: str | bytes) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        found = json.loads(text)
        return str(found.get("error_message") or found.get("message") or found.get("error") or text)
    except (ValueError, AttributeError):
        return text


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:299]}…"


def _named(name: str) -> str:
    return _equal("display_name", name)


def _equal(key: str, value: str) -> str:
    """What the API is told to look for."""
    return json.dumps({"predicates": [{"key": key, "operation": "EQUALS", "stringValue": value}]})


def _run(said: Any) -> BackendRun:
    details = said.run_details.task_details if said.run_details else None
    return BackendRun(
        said.run_id,
        said.display_name or "",
        said.state or "PENDING",
        _seconds(said.created_at),
        _seconds(said.finished_at),
        _short(said.error.message) if said.error and said.error.message else "",
        said.recurring_run_id or "",
        _parameters(said),
        tuple(map(_detail, details or ())),
    )


def _detail(said: Any) -> Detail:
    return Detail(
        said.display_name or "",
        said.state or "",
        said.task_id or "",
        _seconds(said.start_time),
        _seconds(said.end_time),
        tuple(c.pod_name for c in said.child_tasks or () if c.pod_name),
        _short(said.error.message) if said.error and said.error.message else "",
    )


def _recurring(said: Any) -> Recurring:
    trigger, version = said.trigger, said.pipeline_version_reference
    cron, every = trigger and trigger.cron_schedule, trigger and trigger.periodic_schedule
    when = Recurrence(
        cron.cron if cron else "",
        int(every.interval_second) if every else 0,
        int(said.max_concurrency or 1),
        not said.no_catchup,
    )
    return Recurring(
        said.recurring_run_id,
        said.display_name or "",
        said.experiment_id or "",
        Version(version.pipeline_id or "", version.pipeline_version_id or "", "") if version else Version("", "", ""),
        when,
        said.status == "ENABLED" if said.status else said.mode == "ENABLE",
        _parameters(said),
        said.service_account or "",
        said.description or "",
        _seconds(said.created_at),
        _short(said.error.message) if said.error and said.error.message else "",
    )


def _parameters(said: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (said.runtime_config.parameters if said.runtime_config else None) or {}
    return {n: _whole(v) for n, v in found.items()}


def _whole(value: Any) -> Any:
    # the API keeps every number as a double
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in value.items()}
    return [_whole(v) for v in value] if isinstance(value, list) else value


def _seconds(moment: datetime | None) -> float:
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() if moment and moment.year > 1 else 0.0
