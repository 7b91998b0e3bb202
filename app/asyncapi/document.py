"""The topics described for machines: AsyncAPI 3.1, generated from the catalogue of types and their payload structs.

Source: https://www.asyncapi.com/docs/reference/specification/v3.1.0
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from app.asyncapi.derived import DERIVED, DerivedTopic
from app.asyncapi.examples import example_event
from app.events import OperatorEventType, VaultEventType, topic_of
from app.events.payloads import PAYLOADS

__all__ = ["asyncapi_document"]

Schema = dict[str, Any]

_PREFIX: Final = "{prefix}"
_SCHEMAS: Final = "#/components/schemas/"
_ABOUT: Final = """\
Vault services publish events on the topics that vault-stream *receives*; what it *sends* is for whoever follows.

Every record is a CloudEvent 1.0. Structured mode is described here (header `content-type:
application/cloudevents+json`, the value is the whole event); binary mode (`ce_` headers, the value is `data`) is read
just as well. The record key is the extension `partitionkey`, else `subject`, else `id`, hashed by murmur2, so that
events of one dataset keep their order.

Delivery is at least once with constant ids: drop what you have seen by `source` and `id`. Two topics are no CloudEvents
of their own: `webhook.deliveries` (the event as it will be posted; drop by the header `vs-delivery-id`) and
`quarantine` (the bytes as they came).

Topics that are not listed are internal and may change without notice.
"""
_HOP: Final = "W3C trace context of the last hop; where there is one it is the parent, and not the event's own."
_CONTENT_TYPE: Final[Schema] = {
    "type": "object",
    "required": ["content-type"],
    "properties": {
        "content-type": {"type": "string", "pattern": "^application/cloudevents\\+json"},
        "traceparent": {"type": "string", "description": _HOP},
    },
}
_EXTENSIONS: Final[dict[str, str]] = {
    "partitionkey": "Takes the place of the subject as record key.",
    "tenantid": "Whose event it is.",
    "correlationid": "Joins events of one piece of work; carried over to what follows.",
    "traceparent": "W3C trace context; carried over to what follows.",
    "expirytime": "A webhook that cannot have it before this time does not get it any more.",
}
_TEXT: Final[Schema] = {"type": "string"}
_HEADERS: Final[dict[str, dict[str, str]]] = {
    "webhook.deliveries": {
        "vs-delivery-id": "Constant over all attempts.",
        "vs-webhook-id": "Whose delivery it is.",
        "vs-reason": "event, resend, ping or replay.",
        "vs-request-id": "Of the request that asked for it; absent for an event.",
        "vs-origin": "`topic/partition/offset` of the event.",
        "traceparent": _HOP,
    },
    "quarantine": {
        "vs-reason": "invalid_envelope, invalid_data, unknown_type, too_large, handler_error or rejected_upstream.",
        "vs-detail": "What is wrong, without values of fields.",
        "vs-topic": "Where it came from.",
        "vs-partition": "Its partition there.",
        "vs-offset": "Its offset there.",
        "vs-timestamp": "Its timestamp there.",
        "vs-key": "Its key there, in base64.",
        "vs-agent": "Which agent refused it.",
        "vs-truncated": "Its length, where only the first 256 KiB of it are here.",
        "vs-sha256": "Of the whole, where it is truncated.",
    },
}


def asyncapi_document() -> dict[str, Any]:
    """The document of all topics that others may write to or read."""
    parts = _Parts()
    for type_ in VaultEventType:
        parts.vault(type_)
    parts.own()
    for topic in DERIVED:
        parts.derived(topic)
    parts.raw("webhook.deliveries", "the webhook's id", "Deliveries to make, resends, pings and replays included")
    parts.raw("quarantine", "`topic/partition/offset` of the record", "What could not be processed, byte for byte")
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "vault-stream",
            "version": "1",
            "license": {"name": "Apache-2.0"},
            "description": _ABOUT,
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {"messages": parts.messages, "schemas": dict(sorted(parts.schemas.items()))},
    }


class _Parts:
    """What the document is made of, as it grows."""

    def __init__(self) -> None:
        _, payloads = msgspec.json.schema_components(
            sorted(set(PAYLOADS.values()), key=str), ref_template=_SCHEMAS + "{name}"
        )
        self.schemas: dict[str, Schema] = {"CloudEvent": _envelope(), **payloads}
        self.messages: dict[str, Schema] = {}
        self.channels: dict[str, Schema] = {}
        self.operations: dict[str, Schema] = {}

    def vault(self, type_: VaultEventType) -> None:
        """One of the 22."""
        name = _name(type_.removeprefix("llm.data-vault."))
        payload = PAYLOADS[type_]
        self._message(name, (payload.__doc__ or "").strip().rstrip("."), type_, _SCHEMAS + payload.__name__)
        self.messages[name]["examples"] = [{"name": name, "payload": example_event(type_)}]
        self._channel(name, topic_of(type_, _PREFIX), "the dataset's, resource's or component's id", [name], "receive")

    def own(self) -> None:
        """The topic of our own types, and of all types in the layout `single`."""
        names = []
        for type_ in OperatorEventType:
            name = _name(type_.removeprefix("llm.data-vault."))
            payload = PAYLOADS[type_]
            self._message(name, (payload.__doc__ or "").strip().rstrip("."), type_, _SCHEMAS + payload.__name__)
            names.append(name)
        # Of the vault's types, these two are published by us as well: of upstreams.
        names += [_name(f"health.{change}") for change in ("degraded", "restored")]
        told = "What happens to webhooks, upstreams and the log itself; with TOPIC_LAYOUT=single all vault events, too"
        key = "the webhook's id, or the upstream's name"
        self._channel("events", topic_of(OperatorEventType.STREAM_GAP, _PREFIX), key, names, "send", told)

    def derived(self, topic: DerivedTopic) -> None:
        """A topic of events that follow from others."""
        names = []
        for kind, (required, optional, shown) in topic.events.items():
            name = _name(kind)
            schema = f"{name}Data"
            properties = {**required, **optional}
            self.schemas[schema] = {"type": "object", "required": list(required), "properties": properties}
            type_ = f"llm.vault-stream.{kind}"
            self._message(name, topic.summary, type_, _SCHEMAS + schema)
            source = "/vault/datasets" if topic.whose else "/vault-stream/vault-stream"
            event = example_event(VaultEventType.DATASET_DELETED) | {"type": type_, "source": source, "data": shown}
            self.messages[name]["examples"] = [{"name": name, "payload": event}]
            names.append(name)
        self._channel(_name(topic.name), f"{_PREFIX}.{topic.name}", topic.key, names, "send", topic.summary)

    def raw(self, topic: str, key: str, summary: str) -> None:
        """A topic whose records are those of others, with headers of ours."""
        name = _name(topic)
        properties = {header: {**_TEXT, "description": told} for header, told in _HEADERS[topic].items()}
        self.messages[name] = {
            "name": name,
            "title": summary,
            "headers": {"type": "object", "properties": properties},
            "payload": {"description": "The bytes of the record as it came."},
        }
        self._channel(name, f"{_PREFIX}.{topic}", key, [name], "send", summary)

    def _message(self, name: str, title: str, type_: str, data: str) -> None:
        self.messages[name] = {
            "name": name,
            "title": title,
            "contentType": "application/cloudevents+json",
            "headers": _CONTENT_TYPE,
            "payload": {
                "allOf": [
                    {"$ref": f"{_SCHEMAS}CloudEvent"},
                    {
                        "type": "object",
                        "required": ["data"],
                        "properties": {"type": {"const": type_}, "data": {"$ref": data}},
                    },
                ]
            },
        }

    def _channel(
        self, name: str, address: str, key: str, messages: list[str], action: str, summary: str | None = None
    ) -> None:
        channel: Schema = {
            "address": address,
            "description": f"Keyed by {key}.",
            "parameters": {"prefix": {"default": "vault", "description": "TOPIC_PREFIX"}},
            "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
        }
        if summary is not None:
            channel["summary"] = summary
        self.channels[name] = channel
        self.operations[f"{action}{name}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{message}"} for message in messages],
        }


def _envelope() -> Schema:
    attribute = {"type": "string", "minLength": 1}
    optional = {"type": ["string", "null"], "minLength": 1}
    return {
        "type": "object",
        "description": "CloudEvents 1.0, at most 256 KiB, no key twice. More extensions: lower-case letters, digits.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {**attribute, "description": "Unique within its source."},
            "source": {**attribute, "format": "uri-reference"},
            "type": attribute,
            "subject": optional,
            "time": {"type": ["string", "null"], "format": "date-time"},
            "datacontenttype": optional,
            "dataschema": {"type": ["string", "null"], "format": "uri"},
            **{name: {**_TEXT, "description": told} for name, told in _EXTENSIONS.items()},
        },
    }


def _name(dotted: str) -> str:
    """`dataset.created` as `DatasetCreated`."""
    return "".join(part.capitalize() for part in re.split(r"[.\-]", dotted))
