"""Read a definition: a Python file or module with a ``@dsl.pipeline``, or a compiled PipelineSpec in YAML or JSON.

Reading untrusted YAML is limited in size, depth and aliases. Tracing a pipeline runs its author's code; what that code
raises is reported with the author's own frames.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tidegate.author.bytecode import forget
from tidegate.author.closure import closure
from tidegate.author.quick_kfp import import_kfp_quickly
from tidegate.errors import DefinitionError, NotFound, TidegateError
from tidegate.project import find_root

MAX_BYTES, MAX_DEPTH, MAX_ALIASES, MAX_NODES = 64 * 2**20, 100, 1000, 5_000_000


@dataclass(frozen=True)
class Definition:
    """A PipelineSpec as plain data, its platform settings, where it came from, and the parameters that came with it."""

    spec: Mapping[str, Any]
    platforms: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def load(target: str) -> Definition:
    """Load ``FILE[:PIPELINE]`` or ``MODULE[:PIPELINE]``.

    Raises:
        NotFound: no such file or pipeline.
        DefinitionError: it cannot be read or traced.
    """
    path, _, name = target.partition(":")
    file = Path(path)
    if is_compiled(target):
        return read_spec(file)
    if file.suffix != ".py" and ("/" in path or file.exists()):
        raise NotFound(
            f"{path} is no pipeline file",
            allowed="A .py file or module with a @dsl.pipeline, or compiled .yaml or .json.",
        )
    if file.suffix == ".py" and not file.is_file():
        raise NotFound(f"there is no file {path}", hint="Look at the path; it is relative to where you stand.")
    return trace(_imported(path, file), name, path)


def is_compiled(target: str) -> bool:
    """Say whether a target is compiled IR by its name."""
    return target.partition(":")[0].endswith((".yaml", ".yml", ".json"))


def read_spec(path: Path) -> Definition:
    """Read a compiled PipelineSpec (kfp's YAML of one or two documents, JSON, or a PipelineJob around it)."""
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise _unreadable(path, f"it is larger than {MAX_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        documents = [json.loads(text)] if text.lstrip().startswith("{") else _yaml_documents(text, path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as e:
        raise _unreadable(path, str(e).replace("\n", " ")[:200]) from e
    if not documents or not all(isinstance(d, dict) for d in documents) or len(documents) > 2:
        raise _unreadable(path, "it is no mapping, or more than two documents")
    spec = documents[0].get("pipelineSpec", documents[0])
    if not isinstance(spec, dict):
        raise _unreadable(path, "pipelineSpec is no mapping")
    platforms = documents[1].get("platforms", {}) if len(documents) == 2 else {}
    return Definition(spec, platforms, str(path), _job_parameters(documents[0]))


def _job_parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters that a PipelineJob around a PipelineSpec was going to be run with."""
    config = document.get("runtimeConfig", {})
    found = config.get("parameterValues", {}) if isinstance(config, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _yaml_documents(text: str, path: Path) -> list[Any]:
    import yaml

    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
        aliases += isinstance(event, yaml.events.AliasEvent)
        if depth > MAX_DEPTH or aliases > MAX_ALIASES:
            raise _unreadable(path, f"more than {MAX_DEPTH} levels or {MAX_ALIASES} aliases")
    with _without_gc():
        documents = [d for d in yaml.load_all(text, Loader=yaml.CSafeLoader) if d is not None]
    if aliases and _expanded(documents, {}) > MAX_NODES:
        raise _unreadable(path, f"its aliases stand for more than {MAX_NODES} values, or for themselves")
    return documents


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """What is only made, and holds no cycles, gives the collector work that grows with its square."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _expanded(value: Any, known: dict[int, float]) -> float:
    """How many values there are when every alias is written out; infinite for one that holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # until it is known: only a value inside itself asks meanwhile
        children = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded(v, known) for v in children)
    return known[id(value)]


def _unreadable(path: Path, why: str) -> DefinitionError:
    return DefinitionError(
        f"{path} is no readable PipelineSpec: {why}",
        allowed="What `kfp dsl compile` or `tidegate compile --to ir` writes.",
        code="ir-unreadable",
    )


def _imported(target: str, file: Path) -> ModuleType:
    root = find_root(file.resolve().parent if file.suffix == ".py" else Path.cwd())
    module = ".".join(file.resolve().relative_to(root).with_suffix("").parts) if file.suffix == ".py" else target
    for folder in (str(file.resolve().parent), str(root / "src"), str(root)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    stale = sys.modules.get(module)
    if file.suffix == ".py" and stale and getattr(stale, "__file__", None) != str(file.resolve()):
        del sys.modules[module]
    forget(root / f for f in closure(module, root).files)
    import_kfp_quickly()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"kfp\..*|.*pipeline.*")
            warnings.filterwarnings("ignore", message="The default base_image used by")
            return importlib.import_module(module)
    except TidegateError:
        raise
    except ModuleNotFoundError as e:
        if e.name == module:
            raise NotFound(f"there is no module {module!r}", allowed="A .py file, a module, .yaml or .json.") from None
        raise raised(e, target) from e
    except BaseException as e:
        raise raised(e, target) from e


def raised(error: BaseException, target: str) -> DefinitionError:
    """The error of a pipeline whose own code raised while it was imported or traced, with its author's last frame."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.endswith(".py") and "site-packages" not in f.filename]
    theirs = [f for f in ours if Path(__file__).parent.parent not in Path(f.filename).parents]
    where = f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else target
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    return DefinitionError(
        f"{type(error).__name__} while reading the pipeline at {where}: {error}",
        hint=f"python {target} shows the whole traceback." if target.endswith(".py") else "",
        code="pipeline-raised",
    )


def trace(module: ModuleType, name: str, target: str) -> Definition:
    """Trace the pipeline ``name`` of a module (the only one, when no name is given) with kfp's compiler."""
    try:
        from kfp.dsl.base_component import BaseComponent
    except Exception as e:
        raise raised(e, target) from e
    pipeline = getattr(module, name, None) if name else _only_pipeline(module, target)
    if not isinstance(pipeline, BaseComponent):
        known = ", ".join(sorted(_pipelines(module))) or "none"
        raise NotFound(f"{target} has no pipeline {name!r}", allowed=f"Its pipelines: {known}.")
    return of_pipeline(pipeline, target)


def of_pipeline(pipeline: Any, target: str) -> Definition:
    """Return the definition of what ``@dsl.pipeline`` (or ``@dsl.component``) made.

    Raises:
        DefinitionError: kfp refuses it.
    """
    from google.protobuf import json_format

    try:
        # proto maps come in no order; names in order make every listing and compilation the same each time
        spec = json.loads(json_format.MessageToJson(pipeline.pipeline_spec, sort_keys=True))
        platforms = json_format.MessageToDict(pipeline.platform_spec).get("platforms", {})
    except Exception as e:
        raise raised(e, target) from e
    return Definition(spec, platforms, target)


def _pipelines(module: ModuleType) -> dict[str, Any]:
    from kfp.dsl.graph_component import GraphComponent

    return {n: v for n, v in vars(module).items() if isinstance(v, GraphComponent)}


def _only_pipeline(module: ModuleType, target: str) -> Any:
    found = _pipelines(module)
    own = {n: p for n, p in found.items() if p.pipeline_func.__module__ == module.__name__} or found
    if len(own) == 1:
        return next(iter(own.values()))
    if not found:
        raise NotFound(f"{target} has no @dsl.pipeline", allowed="A module with a function decorated by @dsl.pipeline.")
    raise DefinitionError(
        f"{target} has {len(own)} pipelines of its own",
        allowed=f"One of: {', '.join(sorted(found))}.",
        hint=f"Name it: {target}:{min(found)}",
        code="pipeline-ambiguous",
    )
