"""The OpenAPI document says what the service does."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from service import schemas
from service.openapi import openapi_document
from tests.service.running import TAXONOMY, process_running, running


@pytest.mark.asyncio
async def test_document_lists_exactly_what_is_served(tmp_path: Path) -> None:
    """Every path and method of the document exists, and no other."""
    async with running(tmp_path) as service:
        document = (await service.client.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            response = await service.client.request("TRACE", path)
            assert response.status_code == 405
            assert response.headers["allow"] == ", ".join(operations).upper()
    assert document == openapi_document(TAXONOMY.intents)


def examples() -> list[tuple[str, str, object]]:
    """Every JSON example with the name of its model."""
    found = []
    for path, operations in openapi_document()["paths"].items():
        for operation in operations.values():
            contents = [r["content"] for r in operation["responses"].values()]
            contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
            for media in (media for content in contents for media in content.values() if "$ref" in media["schema"]):
                model = media["schema"]["$ref"].rpartition("/")[2]
                values = [media["example"]] if "example" in media else [e["value"] for e in media["examples"].values()]
                found += [(path, model, value) for value in values]
    return found


@pytest.mark.parametrize(("path", "model", "example"), examples())
def test_every_example_fits_its_model(path: str, model: str, example: object) -> None:
    """An example that would be refused teaches the wrong thing."""
    kind: type[BaseModel] = getattr(schemas, model)
    kind.model_validate(example)


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Generated requests, good and bad, over every operation: answers are as documented and never a 500."""
    with process_running(tmp_path) as service:
        checked = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{service.port}/openapi.json"),
                *("--checks", "all", "--mode", "all", "--max-examples", "25", "--seed", "42", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert checked.returncode == 0, checked.stdout[-6000:] + checked.stderr[-2000:]
