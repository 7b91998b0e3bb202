"""`python -m app.asyncapi`: writes `asyncapi.yaml` to the standard output."""

from __future__ import annotations

import sys

import orjson
import yaml

from app.asyncapi import asyncapi_document

__all__ = ["asyncapi_yaml"]


def asyncapi_yaml() -> str:
    """The document as text."""
    # Through JSON: YAML would write what is there twice as a reference, and knows no enums.
    plain = orjson.loads(orjson.dumps(asyncapi_document()))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return text


if __name__ == "__main__":
    sys.stdout.write(asyncapi_yaml())
