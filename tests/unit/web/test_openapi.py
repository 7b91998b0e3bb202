"""The document of the API is valid, and says what is served: nothing less, nothing more."""

import json
import subprocess
import sys
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

from app.devstack.processes import module_environment
from app.web.openapi import AREAS, openapi_document, openapi_routes
from tests.support.listening import TOKENS, listening

LIST_ROUTES = """
import json
from app.main import build
from app.settings import load_settings
from app.worker_routes import worker_routes
print(json.dumps([[route.method.lower(), route.path] for route in worker_routes(build(load_settings()))]))
"""


def served(folder: Path) -> set[tuple[str, str]]:
    """Method and path of all routes of a worker; it is put together in a process of its own, and not started."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_ROUTES],
        env=module_environment({"DATA_DIR": str(folder / "data"), "BROKERS": "127.0.0.1:1"}),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])}


def test_it_is_openapi_3_1() -> None:
    document = openapi_document(AREAS)
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    described = {(method, path) for area in AREAS for path, methods in area.paths.items() for method in methods}
    assert described == served(tmp_path)


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation.name for area in AREAS for methods in area.paths.values() for operation in methods.values()]
    assert len(names) == len(set(names))


async def test_it_is_served_to_everybody() -> None:
    async with listening(openapi_routes(), TOKENS) as api:
        answer = await api.get("/openapi.json")
    assert answer.status == 200
    assert answer.document == openapi_document(AREAS)
