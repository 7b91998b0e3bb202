"""The official AsyncAPI parser takes `asyncapi.yaml`, and refuses it with a fault planted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.foreign import PACKAGES, must_run, require_tool

pytestmark = pytest.mark.foreign

FILE = Path(__file__).parents[2] / "asyncapi.yaml"
PROGRAM = """\
const { Parser } = require("@asyncapi/parser");
const fs = require("fs");
new Parser().parse(fs.readFileSync(process.argv[2], "utf8")).then(({ document, diagnostics }) => {
  const errors = diagnostics.filter((one) => one.severity === 0).map((one) => one.message);
  console.log(JSON.stringify({ errors, channels: document ? document.allChannels().all().length : 0 }));
});
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = require_tool("npm")
    made = tmp_path_factory.mktemp("asyncapi")
    shutil.copytree(PACKAGES / "asyncapi", made, dirs_exist_ok=True)
    must_run(npm, "ci", "--no-audit", "--no-fund", cwd=made)
    (made / "parse.js").write_text(PROGRAM)
    return made


def parsed(folder: Path, document: Any) -> dict[str, Any]:
    file = folder / "document.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    answer: dict[str, Any] = json.loads(must_run(require_tool("node"), "parse.js", str(file), cwd=folder))
    return answer


def test_the_document_is_taken(folder: Path) -> None:
    answer = parsed(folder, FILE.read_text())
    assert answer["errors"] == []
    assert answer["channels"] == len(yaml.safe_load(FILE.read_text())["channels"])


def test_a_planted_fault_is_refused(folder: Path) -> None:
    document = yaml.safe_load(FILE.read_text())
    document["operations"]["sendWebhookAttempts"]["action"] = "subscribe"
    assert parsed(folder, document)["errors"]
    document = yaml.safe_load(FILE.read_text())
    document["components"]["messages"]["DatasetCreated"]["payload"]["allOf"][0]["$ref"] = "#/components/schemas/None"
    assert parsed(folder, document)["errors"]
