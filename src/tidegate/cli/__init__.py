"""The command line: one module a command group; each parses, calls one function, prints. Nobody imports it.

Exit codes: 0 done; 1 the run or the gate said no; 2 wrong usage or an invalid definition; 3 store, cluster or network
trouble; 130 interrupted; 141 whoever read the output left, as ``head`` does.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click

from tidegate.errors import TidegateError

# name -> (module, help): the help stands here so that `tidegate --help` imports no command
COMMANDS = {
    "run": ("tidegate.cli.run", "Run a pipeline, here or on Argo."),
    "compile": ("tidegate.cli.compile", "Compile a pipeline to kfp's IR or Argo objects."),
    "schedule": ("tidegate.cli.schedule", "Run pipelines by the clock on a cluster."),
    "watch": ("tidegate.cli.watch", "Run a pipeline when its data is new."),
    "runs": ("tidegate.cli.runs", "List runs, show one, compare two, read logs, forget some."),
    "data": ("tidegate.cli.data", "Pin datasets, bring them, check what is there."),
    "cache": ("tidegate.cli.cache", "Remove what nothing needs any more."),
    "model": ("tidegate.cli.model", "List models, show versions, promote one, mirror into MLflow."),
    "gate": ("tidegate.cli.gate", "Judge evidence by a policy."),
    "audit": ("tidegate.cli.audit", "Verify the ledger."),
    "images": ("tidegate.cli.images", "Build the images that components run in, list them."),
    "serve": ("tidegate.cli.serve", "Serve a registered model (Open Inference Protocol v2)."),
    "front": ("tidegate.cli.front", "Share a model's live traffic between versions."),
    "monitor": ("tidegate.cli.monitor", "Watch live rows and predictions for drift."),
    "rollout": ("tidegate.cli.rollout", "Give a version live traffic step by step, judged while it flows."),
    "rollback": ("tidegate.cli.rollback", "Give all traffic back to the version before, now."),
    "doctor": ("tidegate.cli.doctor", "Check this machine, the project and the store."),
}


@contextlib.contextmanager
def _read() -> Iterator[None]:
    """End with 141 where the reader left; click would end with 1, which says no."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(141) from None


class _Lazy(click.Group):
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _read():  # --help
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _read():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        if not gc.isenabled():  # by main: who calls us from a process of theirs goes on collecting what is theirs
            gc.freeze()
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="tidegate")
def group() -> None:
    """Version control and CI/CD for machine-learning models on Kubeflow and Argo."""


def main() -> None:
    """Run the command line and exit with its code."""
    gc.disable()  # until the modules are there: they stay
    code = _main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    sys.exit(code)


def _main(args: list[str]) -> int:
    try:
        result = group.main(args, prog_name="tidegate", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as e:
        error, code = {"code": "usage", "message": e.format_message()}, 2
        with contextlib.suppress(OSError):
            e.show()
    except TidegateError as e:
        error, code = e.as_json(), e.exit_code
        _say(format_error(error), err=True)
    except OSError as e:
        error, code = _system_error(e), 3
        _say(format_error(error), err=True)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted", err=True)
        return 130
    if "--json" in args:
        empty: dict[str, Any] = {"run_id": None, "state": "FAILED", "outputs": {}, "steps": []}
        _say(json.dumps({**(empty if args[0] == "run" else {}), "error": error}))
    return code


def _say(text: str, *, err: bool = False) -> None:
    """Print words that go with an exit code: it says the same where nobody takes them."""
    with contextlib.suppress(OSError):
        click.echo(text, err=err)


def _system_error(error: OSError) -> dict[str, Any]:
    """What the operating system refused: a file by its name, or, where it names none, the words on stdout."""
    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO):
        return {"code": "system", "message": str(error)}
    hint = "What was done is in the store: tidegate runs show last"
    return {"code": "output-lost", "message": f"cannot write the output: {error.strerror}", "hint": hint}


def _let_go(stream: TextIO | None) -> None:
    """Forget what a stream still holds and cannot write, or Python complains of it, with a code of its own, when it ends."""
    if stream is None:  # it was closed before we began
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def format_error(error: Any) -> str:
    """An error in its three parts: what was found, what is allowed, what to type next."""
    lines = [f"error[{error['code']}]: {error['message']}"]
    lines += [f"  {error['allowed']}"] if error.get("allowed") else []
    lines += [f"  → {error['hint']}"] if error.get("hint") else []
    return "\n".join(lines)
