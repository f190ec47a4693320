"""A peer's environment: the peer and its dependencies on top of the project's environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from shutil import rmtree

import torch
import torchvision

from mip.errors import MipError

FOLDER = Path(__file__).parent


def make_environment(peer: str, folder: Path) -> Path:
    """Create a peer's environment in a folder, unless it exists, and return its Python.

    torch is the project's. Raises MipError if the peer cannot be installed with that version.
    """
    requirements = FOLDER / peer / "requirements.txt"
    ready, python = folder / "ready", folder / "bin" / "python"
    if not (ready.is_file() and ready.read_text() == requirements.read_text()):
        rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _append_path(python, sysconfig.get_path("purelib"))
        _install(python, requirements, folder / "constraints.txt")
        ready.write_text(requirements.read_text())
    return python


def _append_path(python: Path, packages: str) -> None:
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    purelib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (Path(purelib) / "project.pth").write_text(packages + "\n")


def _install(python: Path, requirements: Path, constraints: Path) -> None:
    pins = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    lines = (f"{name}=={version.split('+')[0]}\n" for name, version in pins.items())
    constraints.write_text("".join(lines))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--constraint", str(constraints), "--requirement", str(requirements)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MipError(f"{' '.join(command)}: {done.stderr.strip()[-1000:]}")
