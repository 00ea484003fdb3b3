"""The settings of the Argo engine: where they come from, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from tidegate.engines.argo.settings import ArgoSettings, read_settings
from tidegate.errors import ConfigError
from tidegate.project import Project, read_project


def settings(**argo: Any) -> ArgoSettings:
    return read_settings(Project(Path("/"), {"argo": argo}))


def test_without_settings_the_names_are_those_of_the_manifests() -> None:
    assert read_settings(Project(Path("/"))) == ArgoSettings(
        namespace="pipelines", service_account="tidegate-run", executor_account="tidegate-executor",
        store_secret="tidegate-store", registrar_secret="tidegate-store-registrar",
    )  # fmt: skip


def test_the_environment_comes_before_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.tidegate.argo]\nnamespace = "team-a"\nservice-account = "runs"\n')
    assert read_settings(read_project(tmp_path)).namespace == "team-a"
    monkeypatch.setenv("TIDEGATE_ARGO_NAMESPACE", "team-b")
    assert read_settings(read_project(tmp_path)) == ArgoSettings(namespace="team-b", service_account="runs")


@pytest.mark.parametrize(
    ("said", "found", "allowed"),
    [
        ({"namespaces": "a"}, "unknown setting 'namespaces'", "namespace, context"),
        ({"namespace": "Team A"}, "'Team A'", "63 characters"),
        ({"namespace": ""}, "''", "63 characters"),
        ({"namespace": 3}, "3", "63 characters"),
        ({"namespace": "a\n"}, "'a\\n'", "63 characters"),
        ({"store-secret": "../x"}, "'../x'", "Kubernetes object"),
        ({"image": "an image"}, "'an image'", "image reference"),
    ],
)
def test_a_setting_that_is_none_is_refused_and_what_is_allowed_is_said(
    said: dict[str, Any], found: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(**said)
    assert found in refused.value.found
    assert allowed in refused.value.allowed


def test_settings_that_are_no_table_are_refused() -> None:
    with pytest.raises(ConfigError, match="no table"):
        read_settings(Project(Path("/"), {"argo": "pipelines"}))


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ARGO_STORE_SECRET", "A B")
    with pytest.raises(ConfigError) as refused:
        settings()
    assert "TIDEGATE_ARGO_STORE_SECRET" in refused.value.hint
