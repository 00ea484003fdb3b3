"""One environment an engine, made with uv from PyPI in the user's cache folder and kept for the next time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = {
    "kfp": ["kfp==2.17.0"],
    "flyte": ["flyte==2.12.1"],
    "kedro": ["kedro==1.7.0"],
    "dvc": ["dvc==3.67.1"],
    "metaflow": ["metaflow==2.19.39"],
    "mlflow": ["mlflow==3.17.2", "onnxruntime==1.32.0"],
    "bentoml": ["bentoml==1.4.40", "onnxruntime==1.32.0"],
    "mlserver": ["mlserver==1.7.1", "onnxruntime==1.32.0"],
    # this checkout, as a wheel
    "tidegate": [f"{ROOT}[kfp]", "kfp==2.17.0"],
    "servers": [f"{ROOT}[serve]", "onnxruntime==1.32.0", "granian", "uvicorn", "httptools", "uvloop"],
}


@dataclass(frozen=True)
class Environment:
    """Where an engine is installed; ``trouble`` says why it is not."""

    name: str
    folder: Path
    trouble: str = ""

    @property
    def python(self) -> str:
        return self.command("python")

    def command(self, name: str) -> str:
        return str(self.folder / "bin" / name)


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate-bench"


def environment(name: str) -> Environment:
    """Make an engine's environment, or take the one that is there; what has this checkout is always brought up to date."""
    folder, pins = cache_folder() / name, PINS[name]
    stamp, ours = folder / "pins.txt", any(pin.startswith(str(ROOT)) for pin in pins)
    if not ours and stamp.is_file() and stamp.read_text() == "\n".join(pins):
        return Environment(name, folder)
    try:
        _install(folder, pins, ["--reinstall-package", "tidegate"] if ours else [])
    except (OSError, subprocess.CalledProcessError) as e:
        said = (getattr(e, "stderr", "") or str(e)).strip().splitlines()
        return Environment(name, folder, trouble=f"cannot be installed: {said[-1][:120] if said else e}")
    stamp.write_text("\n".join(pins))
    return Environment(name, folder)


def _install(folder: Path, pins: list[str], flags: list[str]) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv") or "uv"
    if not (folder / "bin" / "python").exists():
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
    target = ["--python", str(folder / "bin" / "python")]
    _run([uv, "pip", "install", "--quiet", "--compile-bytecode", *target, *flags, *pins])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
