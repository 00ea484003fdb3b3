"""A definition that was loaded, checked and planned: what runs begin with, and what clusters are given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidegate.author.images import check_code, check_families, check_pinned, family_of, read_lock
from tidegate.engines.base import Arguments, check_arguments, check_given
from tidegate.engines.own import own_step, plain
from tidegate.errors import DefinitionError
from tidegate.ir.check import check
from tidegate.ir.kept import Kept, watching
from tidegate.ir.load import Definition, is_compiled, load, of_pipeline
from tidegate.ir.placeholder import placeholders
from tidegate.plan.build import build
from tidegate.plan.key import environment_digest
from tidegate.plan.model import Constant, Container, Dag, Plan, Task
from tidegate.project import PROJECT_FILE, Project, cache_folder, read_project
from tidegate.registry import policy
from tidegate.store.runs import RunRecord

if TYPE_CHECKING:
    from tidegate.cron import Cron
    from tidegate.engines.argo.packed import Packed
    from tidegate.engines.kfp.prepare import Prepared as ForKfp


@dataclass(frozen=True)
class Prepared:
    """A definition that was loaded and checked, with its plan and its project."""

    target: str
    definition: Definition
    plan: Plan
    project: Project


def prepare(target: Any, *, fresh: bool = False) -> Prepared:
    """Load, check and plan ``FILE[:PIPELINE]``, or what ``@dsl.pipeline`` made.

    Args:
        target: what to run.
        fresh: read and trace it even where nothing it was made from has changed since last time.

    Raises:
        DefinitionError: it cannot be read, traced or planned.
    """
    named = target if isinstance(target, str) else _source(target)
    definition = _loaded(target, fresh) if isinstance(target, str) else _checked(of_pipeline(target, named))
    return Prepared(named, definition, build(definition.spec, definition.platforms), _project(named))


def _loaded(target: str, fresh: bool) -> Definition:
    kept = Kept(cache_folder() / "definitions", environment_digest())
    if (is_compiled(target) or not fresh) and (found := kept.find(target)):
        return found
    with watching(target) as sources:
        definition = load(target)
    definition = _checked(definition)
    kept.keep(target, definition, sources)
    return definition


def _checked(definition: Definition) -> Definition:
    return replace(definition, spec=check(definition.spec, definition.platforms))


def _project(target: str) -> Project:
    """The project around the file, else the one around the working directory."""
    file = Path(target.partition(":")[0])
    around = read_project(file.resolve().parent) if file.exists() else read_project()
    here = read_project()
    return here if not (around.root / PROJECT_FILE).is_file() and (here.root / PROJECT_FILE).is_file() else around


def _source(pipeline: Any) -> str:
    func = getattr(pipeline, "pipeline_func", None) or getattr(pipeline, "python_func", None)
    if func is None:
        raise DefinitionError(
            f"a {type(pipeline).__name__} is no pipeline",
            allowed="FILE[:PIPELINE], a module, or what @dsl.pipeline or @dsl.component made.",
        )
    return inspect.getsourcefile(func) or ""


def check_images(prepared: Prepared, *, mutable: bool = False, launcher: str = "") -> None:
    """Refuse what a cluster could not run: images without a digest, code that is not what the image holds.

    Args:
        prepared: what is to run there.
        mutable: allow images by tag; a family that was never pushed is refused all the same.
        launcher: the family of the launcher, where the engine has no image for it.

    Raises:
        DefinitionError: a mutable image, or families without one.
        CodeMismatch: the component's code differs from ``images.lock``.
    """
    root = prepared.project.root
    containers = [e for e in prepared.plan.executors.values() if isinstance(e, Container)]
    check_families((family_of(plain(e.image)) for e in containers), root, launcher)
    lock = read_lock(root)
    for executor in containers:
        image = plain(executor.image)
        if not placeholders(executor.image) and not mutable:
            check_pinned(image)
        if step := own_step(executor):
            check_code(lock, image, step.function, step.code_digest)


def policies(plan: Plan) -> list[policy.Policy]:
    """Every gate policy that travels in the plan as a constant input named ``policy``."""
    texts = [t.parameters.get("policy") for t in _tasks(plan.root.body)]
    values = [s.value for s in texts if isinstance(s, Constant) and isinstance(s.value, str)]
    return [policy.parse(v) for v in values if policy.MARK in v]


def _tasks(body: Dag | str) -> list[Task]:
    if isinstance(body, str):
        return []
    return [t for task in body.tasks.values() for t in (task, *_tasks(task.component.body))]


def packed_definition(prepared: Prepared, record: RunRecord | None = None, *, use_cache: bool = True) -> Packed:
    """Return what a Workflow carries to its pods, with where it came from where a run's record says so."""
    from tidegate.engines.argo.packed import Packed

    origin = record.origin if record else {}
    return Packed(prepared.definition.spec, prepared.definition.platforms or {}, origin, use_cache)


def prepared_for_kfp(prepared: Prepared, *, use_cache: bool = True) -> ForKfp:
    """Return a definition as Kubeflow Pipelines is given it, with what was changed."""
    from tidegate.engines.kfp.prepare import prepare as changed
    from tidegate.engines.kfp.settings import read_settings

    definition = prepared.definition
    return changed(definition.spec, definition.platforms or {}, read_settings(prepared.project), use_cache=use_cache)


def compile_for_argo(
    prepared: Prepared,
    form: str,
    parameters: Mapping[str, Any] | None = None,
    cron: Cron | None = None,
    *,
    name: str = "",
    mutable_images: bool = False,
) -> str:
    """Compile a pipeline to Argo objects, as YAML.

    Args:
        prepared: the pipeline.
        form: ``argo``, ``argo-template`` or ``argo-cron``.
        parameters: run parameters as JSON values; those that are not given keep their defaults.
        cron: when a schedule runs.
        name: of the objects; the pipeline's by default.
        mutable_images: allow images by tag.

    Raises:
        UsageError: something that cannot be said to Argo, an image that a cluster could not run, or a schedule
            without a value for a parameter.
    """
    from tidegate.engines.argo.dump import dump
    from tidegate.engines.argo.objects import objects
    from tidegate.engines.argo.start import argo_settings, missing_launcher

    check_images(prepared, mutable=mutable_images, launcher=missing_launcher(prepared.project))
    for found in policies(prepared.plan):
        policy.check_parameters(found, parameters or {})
    given = check_given(prepared.plan, parameters or {})
    text = dump(objects(form, packed_definition(prepared), argo_settings(prepared.project), given, cron, name))
    if form == "argo-cron":  # nobody is there to give it what is missing
        check_arguments(prepared.plan, Arguments({**prepared.definition.parameters, **(parameters or {})}))
    return text
