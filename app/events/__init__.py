"""Events: the envelope, the catalogue of types, and their way to bytes and back (contracts 1, 9.1, 9.2, 9.4).

Plain values and functions without a clock, randomness or input and output. Decoding raises ``InvalidEvent`` and nothing
else, whatever the bytes.
"""

from app.events.canonical import canonical_json
from app.events.catalog import (
    AUDIT_RECORDED,
    KNOWN_TYPES,
    AdminEventType,
    EventKind,
    OperatorEventType,
    TopicLayout,
    VaultEventType,
    check_type,
    subject_of,
    topic_of,
    vault_topics,
)
from app.events.codec import decode_structured, encode_structured, new_event
from app.events.derived import decode_derived, derived_event
from app.events.envelope import MAX_EVENT_BYTES, CloudEvent, EventFields, ExtensionValue, extension_text
from app.events.errors import InvalidEvent
from app.events.identifiers import delivery_id, uuid7
from app.events.kafka_binding import STRUCTURED_HEADERS, decode_record, encode_binary
from app.events.partitioning import murmur2, partition_for, record_key
from app.events.payload_codec import decode_payload
from app.events.payloads import Payload
from app.events.strict_json import JsonRefused, loads_strict
from app.events.times import MOMENT_FORM, format_time, parse_moment_ms, parse_time, parse_time_ms
from app.events.trace_context import TRACEPARENT, traceparent_of

__all__ = [
    "AUDIT_RECORDED",
    "KNOWN_TYPES",
    "MAX_EVENT_BYTES",
    "MOMENT_FORM",
    "STRUCTURED_HEADERS",
    "TRACEPARENT",
    "AdminEventType",
    "CloudEvent",
    "EventFields",
    "EventKind",
    "ExtensionValue",
    "InvalidEvent",
    "JsonRefused",
    "OperatorEventType",
    "Payload",
    "TopicLayout",
    "VaultEventType",
    "canonical_json",
    "check_type",
    "decode_derived",
    "decode_payload",
    "decode_record",
    "decode_structured",
    "delivery_id",
    "derived_event",
    "encode_binary",
    "encode_structured",
    "extension_text",
    "format_time",
    "loads_strict",
    "murmur2",
    "new_event",
    "parse_moment_ms",
    "parse_time",
    "parse_time_ms",
    "partition_for",
    "record_key",
    "subject_of",
    "topic_of",
    "traceparent_of",
    "uuid7",
    "vault_topics",
]
