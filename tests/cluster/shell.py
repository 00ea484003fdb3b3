"""Programs that the tests call: kubectl, mc, what builds images."""

import os
import subprocess


def call(*command: str, stdin: str = "", **env: str) -> str:
    done = subprocess.run(
        command, input=stdin, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def kubectl(*words: str, stdin: str = "") -> str:
    return call("kubectl", *words, stdin=stdin)
