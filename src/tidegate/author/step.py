"""The command inside the container: check the code, run one component function through kfp's executor.

``python -m tidegate.author.step --executor_input JSON|@FILE --function_to_execute PKG.MODULE:FUNC --code_digest D``

* argv is limited to 128 KiB, so the input may also come as ``@FILE`` or in ``TIDEGATE_EXECUTOR_INPUT``.
* The code digest is computed again before anything of the user's is imported: an old image never fills a new key.
* A failure leaves ``error.json`` beside the executor's output file: the error and the user's own frames.
* ``FUNC`` of a script, ``jobs/flow.py:FUNC``, is no function that can be imported: the module that ``TIDEGATE_LOADER``
  names makes one of it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tidegate.author.command import ERROR_FILE, LOADER
from tidegate.author.frames import is_machinery
from tidegate.author.quick_kfp import import_kfp_quickly
from tidegate.errors import CodeMismatch, DefinitionError, TidegateError
from tidegate.project import find_root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; return its exit code."""
    parser = argparse.ArgumentParser(prog="tidegate.author.step", description="Run one component function.")
    parser.add_argument("--executor_input")
    parser.add_argument("--function_to_execute", required=True)
    parser.add_argument("--code_digest")
    parser.add_argument("--component_module_path", type=Path)
    args = parser.parse_args(argv)
    executor_input = read_input(args.executor_input)
    try:
        execute(executor_input, args.function_to_execute, args.code_digest, args.component_module_path)
    except BaseException as e:
        if isinstance(e, SystemExit) and not e.code:
            return 0
        report_failure(e, Path(executor_input["outputs"]["outputFile"]).with_name(ERROR_FILE))
        if isinstance(e, SystemExit) and isinstance(e.code, int):
            return e.code
        return e.exit_code if isinstance(e, TidegateError) else 1
    return 0


def read_input(said: str | None) -> dict[str, Any]:
    """Return the executor input from the flag, the file it names, or the environment."""
    text = said or os.environ.get("TIDEGATE_EXECUTOR_INPUT", "")
    if text.startswith("@"):
        text = Path(text[1:]).read_text()
    if not text:
        raise SystemExit("tidegate.author.step: no executor input: --executor_input or TIDEGATE_EXECUTOR_INPUT")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def execute(executor_input: dict[str, Any], function: str, code_digest: str | None, file: Path | None) -> None:
    """Import the function and run it through kfp's ``Executor``, which writes ``executor_output.json``."""
    os.environ["_KFP_RUNTIME"] = "true"
    if file:
        load: Callable[[], Any] = lambda: _from_file(file, function)  # noqa: E731
    else:
        if code_digest:
            check_code(function, code_digest, find_root(Path.cwd()))
        load = lambda: _of_script(function) if ".py:" in function else _from_module(function)  # noqa: E731
    func = _with_dsl_if_needed(load)
    from kfp.dsl.executor import Executor

    Executor(executor_input=executor_input, function_to_execute=func).execute()


def check_code(function: str, expected: str, root: Path) -> None:
    """Refuse to run code other than what the pipeline was compiled from.

    Raises:
        CodeMismatch: the import closure's digest differs.
    """
    from tidegate.author.bytecode import forget  # lightweight components have no code to check
    from tidegate.author.closure import closure

    code = closure(function.partition(":")[0], root)
    if code.digest != expected:
        found = f"has the code {code.digest[:19]}…" if code.files else f"is not below {root}"
        raise CodeMismatch(
            f"{function} {found}, the pipeline was compiled from {expected[:19]}…",
            allowed="A step runs exactly the code it was compiled from.",
            hint="Compile the pipeline again, and where it runs in an image build that again.",
        )
    forget(root / f for f in code.files)


def _from_module(function: str) -> Any:
    module, _, name = function.partition(":")
    root = find_root(Path.cwd())
    sys.path[:0] = [folder for folder in (str(root), str(root / "src")) if folder not in sys.path]
    return _attribute(importlib.import_module(module), name)


def _of_script(function: str) -> Any:
    loader = os.environ.get(LOADER)
    if not loader:
        raise DefinitionError(f"{function} is of a script, and {LOADER} is not set", code="component-missing")
    return importlib.import_module(loader).load(function)


def _from_file(file: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{file} is no Python file", code="component-unreadable")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return _attribute(module, name)


def _attribute(module: Any, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        raise DefinitionError(f"{module.__name__} has no component {name!r}", code="component-missing")
    return getattr(found, "python_func", found)


def _with_dsl_if_needed(load: Callable[[], Any]) -> Any:
    """Load with kfp's quick runtime import; a module that needs the DSL is loaded again with the full one."""
    before = set(sys.modules)
    try:
        return load()
    except (ImportError, AttributeError) as e:
        if "kfp" not in (getattr(e, "name", None) or "") + str(e):
            raise
    # kfp and what was half imported of the user's; extension modules cannot be loaded twice
    for name in {m for m in sys.modules if m.partition(".")[0] == "kfp" or (m not in before and _is_first_party(m))}:
        sys.modules.pop(name, None)
    os.environ.pop("_KFP_RUNTIME", None)
    import_kfp_quickly()
    return load()


def _is_first_party(module: str) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    return bool(file) and "site-packages" not in str(file) and Path(str(file)).is_relative_to(find_root(Path.cwd()))


def report_failure(error: BaseException, path: Path) -> None:
    """Print the user's own part of the traceback and leave it, as JSON, where the engine looks for it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_machinery(f.filename)]
    text = str(error) or type(error).__name__
    body: dict[str, Any] = {
        "type": type(error).__name__,
        "message": text,
        "frames": [{"file": f.filename, "line": f.lineno, "function": f.name, "code": f.line or ""} for f in frames],
    }
    if isinstance(error, TidegateError):
        body["tidegate"] = error.as_json()
    if not isinstance(error, TidegateError):
        print("Traceback (most recent call last):", file=sys.stderr)
        print("".join(traceback.format_list(frames)), end="", file=sys.stderr)
    print(f"{type(error).__name__}: {text}", file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body))


if __name__ == "__main__":
    raise SystemExit(main())
