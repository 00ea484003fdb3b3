"""A page whose commands are run: what it shows beside them has to be what they print, ``…`` standing for anything."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import wait_until

_IDENTITY = (("NAME", "reader"), ("EMAIL", "reader@tidegate.invalid"))
SECONDS = 600.0  # a step that trains, on a machine that does much else
_BLOCK = re.compile(r"(?:`(?P<file>[^`\n]+)`:\n\n)?```(?P<language>\w+)\n(?P<body>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the file that the line before it says it is."""

    language: str
    body: str
    file: str = ""

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Each command of a console with the lines shown below it."""
        for part in re.split(r"^\$ ", self.body, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            yield command, shown


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(m["language"], m["body"], m["file"] or "") for m in _BLOCK.finditer(page.read_text())]


def missing(shown: list[str], printed: str) -> list[str]:
    """The shown lines that were not printed."""
    lines = printed.splitlines()
    patterns = {line: ".*".join(map(re.escape, line.rstrip().split("…"))) for line in shown}
    return [line for line, pattern in patterns.items() if not any(re.fullmatch(pattern, p) for p in lines)]


@dataclass
class Terminals:
    """A reader with two terminals: in the second goes on what ends by Ctrl-C only.

    Args:
        folder: where both stand at first.
        env: their environment.
        log: what the second terminal shows.
    """

    folder: Path
    env: Mapping[str, str]
    log: Path
    going: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def follow(self, page: list[Block], endless: str) -> None:
        """Do what a page says; a console that begins with the word ``endless`` and no ``--once`` is for the second."""
        for block in page:
            if block.file:
                (self.folder / block.file).write_text(block.body)
            elif block.language == "text":
                self._see(block.body.splitlines())
            else:
                for command, shown in block.commands():
                    second = command.startswith(endless) and "--once" not in command
                    self._begin(command, shown) if second else self._type(command, shown)

    def _type(self, command: str, shown: list[str]) -> None:
        if command.startswith("cd "):
            self.folder = (self.folder / command.removeprefix("cd ")).resolve()
            return
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=self.env, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        assert not missing(shown, done.stdout), f"{missing(shown, done.stdout)} is not in\n$ {command}\n{done.stdout}"

    def _begin(self, command: str, shown: list[str]) -> None:
        with self.log.open("wb") as log:
            self.going = subprocess.Popen(
                shlex.split(command), cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        self._see(shown)

    def _see(self, shown: list[str]) -> None:
        """Wait until the second terminal shows lines, or what runs there has ended."""
        assert self.going
        wait_until(lambda: not missing(shown, self.log.read_text()) or self.going.poll() is not None, SECONDS)
        assert not missing(shown, self.log.read_text()), self.log.read_text()

    def interrupt(self) -> int:
        """Press Ctrl-C in the second terminal; return the exit code."""
        assert self.going
        self.going.send_signal(signal.SIGINT)
        return self.going.wait(60)

    def close(self) -> None:
        """End what goes on in the second terminal, whatever it is doing."""
        if self.going:
            self.going.kill()
            self.going.wait()


def environment(*folders: Path) -> dict[str, str]:
    """An environment with these folders first on the PATH, and nobody's settings of git."""
    who = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in _IDENTITY}
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "TIDEGATE_MLFLOW": "false", **who}
    return {**os.environ, **own, "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]])}
