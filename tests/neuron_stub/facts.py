"""
How optimum-neuron 0.4.5 calls torch_neuronx and the compiler, read from its source and kept as a small file:

    pip download --no-deps optimum-neuron==0.4.5 && python -m zipfile -e optimum_neuron-*.whl FOLDER
    python -m tests.neuron_stub.facts FOLDER
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FACTS_FILE = Path(__file__).with_name("optimum_neuron_0_4_5.json")
CONVERT = "optimum/exporters/neuron/convert.py"
COMMAND = "optimum/commands/export/neuronx.py"


def read_facts(package: Path) -> dict[str, Any]:
    """What the unpacked wheel's source says; nothing of it is imported or kept."""
    convert = ast.parse((package / CONVERT).read_text(encoding="utf-8"))
    command = ast.parse((package / COMMAND).read_text(encoding="utf-8"))
    return {
        "source": f"optimum-neuron 0.4.5: {CONVERT}, {COMMAND}",
        "trace_positional": _trace_call(convert)[0],
        "trace_keywords": _trace_call(convert)[1],
        "compiler_flags": sorted(set(_flags(convert))),
        "targets": sorted(set(_literals_of(convert, "instance_type"))),
        "auto_cast_types": sorted(_choices_of(command, "--auto_cast_type")),
    }


def _trace_call(tree: ast.Module) -> tuple[int, list[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "neuronx.trace":
            return len(node.args), sorted(keyword.arg or "**" for keyword in node.keywords)
    raise LookupError(f"{CONVERT} has no call of neuronx.trace")


def _flags(tree: ast.Module) -> Iterator[str]:
    """Whole words that begin with two dashes in the lists of compiler arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List):
            for element in node.elts:
                if isinstance(element, ast.Constant) and str(element.value).startswith("--"):
                    yield str(element.value).partition("=")[0]


def _literals_of(tree: ast.Module, argument: str) -> Iterator[str]:
    """Of the annotation of every argument of that name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg == argument and node.annotation is not None:
            for part in ast.walk(node.annotation):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def _choices_of(tree: ast.Module, option: str) -> list[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Constant) and a.value == option for a in node.args):
            for keyword in node.keywords:
                if keyword.arg == "choices":
                    return list(ast.literal_eval(keyword.value))
    raise LookupError(f"{COMMAND} has no choices for {option}")


if __name__ == "__main__":
    FACTS_FILE.write_text(json.dumps(read_facts(Path(sys.argv[1])), indent=2) + "\n", encoding="utf-8")
