"""Topics for machines (`asyncapi.yaml`, contracts 1.4)."""

from app.asyncapi.document import asyncapi_document

__all__ = ["asyncapi_document"]
