"""The stand-in as processes of their own find it: an installed torch_neuronx of the right release, and a device."""

import os
from pathlib import Path

from tests.neuron_stub import torch_neuronx

ROOT = Path(__file__).resolve().parents[2]
RELEASES = {"torch_neuronx": torch_neuronx.RELEASE, "neuronx_cc": "2.26.6360.0"}

# What a process imports before anything else: the runtime looks for the device's file, which no test may make.
_DEVICE = """\
import glob

_real = glob.glob


def _with_device(pattern, *args, **kwargs):
    return ["/dev/neuron0"] if pattern == "/dev/neuron*" else _real(pattern, *args, **kwargs)


glob.glob = _with_device
"""


def environment_with_neuron(folder: Path) -> dict[str, str]:
    """This process's environment, with a folder before all others in which the stand-in is installed."""
    folder.mkdir()
    (folder / "torch_neuronx.py").write_text("from tests.neuron_stub.torch_neuronx import *\n", encoding="utf-8")
    (folder / "sitecustomize.py").write_text(_DEVICE, encoding="utf-8")
    for name, release in RELEASES.items():
        described = folder / f"{name}-{release}.dist-info"
        described.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {release}\n"
        (described / "METADATA").write_text(text, encoding="utf-8")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
