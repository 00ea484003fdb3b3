"""packages_to_install: into an environment of their own, once per set, never into the caller's."""

import importlib.util
from pathlib import Path

import pytest
from kfp import dsl

from tests.engines.project import Project
from tidegate.engines.local.packages import wanted
from tidegate.project import cache_folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@dsl.component(base_image="python:3.11", packages_to_install=["cowsay==6.1"])
def cow(text: str) -> str:
    import importlib.util
    import sys

    import cowsay

    assert not importlib.util.find_spec("sklearn"), sys.path
    return cowsay.get_output_string("cow", text).splitlines()[1].strip(" |")


@dsl.component(base_image="python:3.11", packages_to_install=["packaging", "pyyaml>=5"])
def already() -> str:
    import sys

    return sys.executable


@dsl.component(base_image="python:3.11", packages_to_install=["no-such-package-of-ours @ file:///no/such.whl"])
def impossible() -> str:
    return ""


@dsl.pipeline(name="cows")
def cows() -> str:
    cow(text="one")
    return cow(text="two").output


def environments() -> list[Path]:
    return list((cache_folder() / "environments").glob("*/bin/python"))


def test_packages_go_into_one_environment_a_set_and_never_into_the_callers(project: Project) -> None:
    outcome = project.run_traced(cows)
    assert outcome.error is None
    assert outcome.parameters == {"Output": "two"}
    assert len([n for n in project.notices() if "environment of their own" in n]) == 1
    assert importlib.util.find_spec("cowsay") is None
    before = environments()
    project.run_traced(cows)
    assert project.cached() == {"cow": True, "cow-2": True}
    assert environments() == before


def test_what_this_environment_already_has_is_not_installed(project: Project) -> None:
    import sys

    assert project.run_traced(already).parameters == {"Output": sys.executable}


def test_a_package_that_cannot_be_installed_fails_the_step_and_is_named(project: Project) -> None:
    error = project.run_traced(impossible).error
    assert error
    assert error["code"] == "packages-failed"
    assert "no-such-package-of-ours" in error["message"]


def test_a_pip_line_is_read_with_its_indexes_and_without_kfp_itself() -> None:
    component = dsl.component(
        func=already.python_func,
        base_image="python:3.11",
        packages_to_install=["a>=1,<2", "git+https://example.org/x.git", "kfp-kubernetes"],
        pip_index_urls=["https://one", "https://two"],
        pip_trusted_hosts=["two"],
    )
    lines = component.component_spec.implementation.container.command[:3]
    packages = wanted(lines)
    assert packages.requirements == ("a>=1,<2", "git+https://example.org/x.git", "kfp-kubernetes")
    assert packages.options == (
        *("--index-url", "https://one"),
        *("--extra-index-url", "https://two"),
        *("--allow-insecure-host", "two"),
    )
