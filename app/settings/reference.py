"""The reference of settings: every variable with its default, what it takes, and what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import SecretStr

from app.settings.catalogue import PREFIX, VARIABLES, Variable
from app.settings.model import Settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["MEANINGS", "settings_page"]

_UPSTREAM: Final = {
    "endpoint": "Base URL; without it this integration is off, and nothing for it is thrown away.",
    "token": "Sent as `Bearer` in `Authorization`, or as it is in another header.",
    "timeout_s": "For a whole request, the answer read.",
    "connect_timeout_s": "For the connection alone.",
    "auth_header": "The header that carries the token.",
    "idempotency_header": "The header by which a repeat is known.",
    "ssl_ca": "A file of roots to trust in place of the system's.",
    "ssl_cert": "The client certificate, for mTLS.",
    "ssl_key": "Its key.",
    "proxy": "An HTTP proxy; none is taken from the environment.",
}
MEANINGS: Final[dict[str, str]] = {
    "brokers": "The Kafka brokers to begin with, `host:port`, comma separated.",
    "app_id": "The consumer group, and the beginning of the names of changelogs and transactions.",
    "topic_prefix": "The beginning of the names of all other topics.",
    "topic_layout": "A topic for each type, or all types on `{prefix}.events`.",
    "partitions": "Of the topics that vault-stream makes; never changed for an `APP_ID` in use.",
    "replication": "Copies of each topic that vault-stream makes.",
    "data_dir": "Where the local tables are; one process at a time.",
    "instance_id": "The name of this worker; a random one is made and kept in `DATA_DIR`.",
    "web_host": "Where the listener is; anything but loopback needs API tokens.",
    "web_port": "API, health and metrics.",
    "public_url": "How other workers reach this one; `http://{WEB_HOST}:{WEB_PORT}` if not set.",
    "stats_port": "Faust's own page, on loopback; 0: off.",
    "checkpoint_interval_s": "The pause between two checkpoints of a number.",
    "session_timeout_s": "After so long without a sign of life the group takes a worker for dead.",
    "secrets_dir": "A folder of files, one a setting; docs/security.md says which are read again while it runs.",
    "api.admin_token": "May do everything.",
    "api.viewer_token": "May read.",
    "api.tokens": "More callers, by name: `[{name, role, sha256}]`.",
    "api.url": "Where the command line finds the API; the listener's own address if not set.",
    "kafka.security_protocol": "How to speak to the brokers.",
    "kafka.sasl_mechanism": "How to log in.",
    "kafka.sasl_username": "As whom; in `SECRETS_DIR` read again when it changes.",
    "kafka.sasl_password": "With what; in `SECRETS_DIR` read again when it changes.",
    "kafka.ssl_ca": "A file of roots to trust in place of the system's; read again when it changes.",
    "kafka.ssl_cert": "The client certificate, for mTLS; read again when it changes.",
    "kafka.ssl_key": "Its key; read again when it changes.",
    "webhooks.retry_schedule_s": "The wait before each attempt.",
    "webhooks.max_retries": "With `RETRY_DELAY_S`, in place of the schedule: so many attempts.",
    "webhooks.retry_delay_s": "Attempt n + 1 waits n times this.",
    "webhooks.timeout_s": "For a whole attempt; a webhook may have its own.",
    "webhooks.max_concurrent": "Attempts in flight of a worker.",
    "webhooks.max_in_flight": "Attempts in flight of a webhook; it may have its own, not above this.",
    "webhooks.pace_after_failures": "So many failures in a row, over `PACE_AFTER_S`, slow a webhook down; 0: never.",
    "webhooks.pace_after_s": "So long it must have failed for that.",
    "webhooks.pace_max_gap_s": "The pauses between its attempts double from 1 s to this.",
    "webhooks.history_ttl_s": "How long an ended delivery is remembered, and a repeated event not delivered again.",
    "webhooks.failed_ttl_s": "The same for one that failed.",
    "webhooks.disable_after_s": "A webhook without a success for so long is disabled.",
    "webhooks.max_age_s": "A delivery that waits longer is given up.",
    "webhooks.allow_http": "Whether webhooks may have `http` URLs.",
    "webhooks.allow_targets": "Networks, addresses and hosts that the deny list would refuse.",
    "webhooks.egress_proxy": "All requests to receivers take it; it must enforce the deny list then.",
    "webhooks.origin": "Who receivers are told that we are, in the OPTIONS handshake and the deliveries after it: a DNS"
    " name, the same one for all workers; the host of `PUBLIC_URL`, a name or an address, if not set.",
    "webhooks.ssl_ca": "A file of roots to trust beside the system's.",
    "webhooks.signing_keys": "`kid:whsk_…` (ed25519) for signatures of version `v1a`; the first one signs.",
    "webhooks.encryption_keys": "`kid:base64 of 32 bytes`; the first encrypts, all decrypt. Without any: no webhooks.",
    **{f"{name}.{field}": told for name in ("governance", "policy", "registry") for field, told in _UPSTREAM.items()},
    "governance.buffer_size": "Audit events a batch.",
    "governance.buffer_bytes": "Bytes a batch.",
    "governance.flush_interval_s": "A batch waits no longer than this for more.",
    "governance.retention_d": "How long the audit topic keeps its records.",
    "governance.batch_first_header": "The header with the offset of a batch's first record.",
    "governance.batch_last_header": "The same of its last one.",
    "governance.path_audit_batch": "Where batches go.",
    "governance.path_reports": "Where reports are asked for.",
    "policy.dialect": "How the engine is spoken to.",
    "policy.cache_ttl_s": "How long an allow is kept at most.",
    "policy.deny_ttl_s": "How long a deny is kept at most.",
    "policy.audit": "Whether an answer waits until its decision is in the log.",
    "policy.max_clock_skew_s": "By how much the clocks of a worker and of the broker may differ.",
    "policy.path_evaluate": "Where access is asked for, in the vault dialect.",
    "policy.path_applicable": "Where the policies of a resource are.",
    "policy.path_violations": "Where violations are reported.",
    "policy.path_authzen_evaluation": "Where access is asked for, in AuthZEN.",
    "policy.authzen_subject_type": "What AuthZEN calls a principal that was named in the vault dialect.",
    "policy.authzen_resource_type": "What it calls a resource.",
    "registry.sync_mode": "Push to the registry, pull from it, or both.",
    "registry.sync_interval_s": "How often it is pulled.",
    "registry.path_datasets": "The datasets.",
    "registry.path_dataset": "One of them.",
    "registry.path_model_datasets": "The datasets of a model.",
    "health.degraded_after_s": "An upstream that mostly fails for so long is told of, as an event `health.degraded`.",
    "health.restored_after_s": "One without a failure for so long is told of again, as `health.restored`.",
    "log.format": "For machines, for a terminal, or short.",
    "log.level": "For all, or by target: `info,app.engine=debug`.",
    "log.output": "`stdout`, `file:PATH` or `both:PATH`.",
    "tracing.endpoint": "Where spans go, OTLP over HTTP: see docs/tracing.md.",
    "tracing.service_name": "What they call this program; wins over `OTEL_SERVICE_NAME` if set.",
    "tracing.sample_ratio": "The share of traces that is kept; wins over `OTEL_TRACES_SAMPLER` if set.",
    "fault": "A fault to meet on purpose, for tests.",
    "faults_allowed": "Whether `FAULT` is accepted.",
}
_NOT_A_DEFAULT: Final = "made, or derived, at the start"


def settings_page() -> str:
    """The page, in Markdown."""
    lines = [
        "# Settings",
        "",
        "Every variable, generated from the code by `make reference`. Each stands behind `VAULT_STREAM_`; groups are",
        "joined by two underscores. They come from the environment, from `.env`, or from the folder that `SECRETS_DIR`",
        "names. An empty value is the same as none; an unknown name, a wrong type or a value out of range stops the",
        "start with one line each. `vault-stream config` shows what holds, and where it comes from.",
    ]
    group = None
    for variable in VARIABLES:
        head = "" if len(variable.path) == 1 else variable.path[0]
        if head != group:
            group = head
            title = f"`{head.upper()}__`" if head else "The worker"
            lines += ["", f"## {title}", "", "| variable | default | takes | |", "|---|---|---|---|"]
        lines.append(_line(variable))
    return "\n".join(lines) + "\n"


def _line(variable: Variable) -> str:
    field = _field(variable)
    cells = (
        f"`{variable.name.removeprefix(PREFIX)}`",
        _default(field),
        _takes(field),
        MEANINGS[".".join(variable.path)],
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _field(variable: Variable) -> FieldInfo:
    model: Any = Settings
    for name in variable.path[:-1]:
        model = model.model_fields[name].annotation
    field: FieldInfo = model.model_fields[variable.path[-1]]
    return field


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or field.default == "":
        return _NOT_A_DEFAULT
    if field.default is None:
        return "-"
    if isinstance(field.default, bool):
        return f"`{json.dumps(field.default)}`"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(map(_number, field.default))}]`"
    return f"`{_number(field.default)}`" if isinstance(field.default, float) else f"`{field.default}`"


def _takes(field: FieldInfo) -> str:
    words = [word for word in _words(field.annotation) if word is not type(None)]
    if words and all(isinstance(word, str) for word in words):
        return " ".join(f"`{word}`" for word in words)
    low, high = _bound(field, "ge"), _bound(field, "le")
    if low is not None and high is not None:
        each = "a JSON list, each " if isinstance(field.default, tuple) else ""
        return f"{each}{_number(low)} to {_number(high)}"
    kinds = {get_origin(word) or word for word in words} | {get_origin(field.annotation)}
    return next((told for kind, told in _KINDS.items() if kind in kinds), "text")


def _number(value: float) -> str:
    return f"{value:.12g}"


def _words(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) or [annotation]


def _bound(field: FieldInfo, name: str) -> float | None:
    for found in _metadata(field.metadata, field.annotation):
        if (value := getattr(found, name, None)) is not None:
            return float(value)
        if (value := getattr(found, "metadata", None)) is not None:
            for inner in value:
                if (bound := getattr(inner, name, None)) is not None:
                    return float(bound)
    return None


def _metadata(metadata: list[Any], annotation: Any) -> list[Any]:
    """Bounds may stand inside of a union with None."""
    return [*metadata, *(one for part in get_args(annotation) for one in get_args(part)[1:])]


_KINDS: Final[dict[type, str]] = {
    tuple: "a JSON list",
    bool: "true or false",
    int: "a number",
    float: "a number",
    Path: "a path",
    SecretStr: "a secret",
}
