"""The settings as types: names, defaults and ranges of contracts 8.2.

A field `web_port` is the variable `VAULT_STREAM_WEB_PORT`, and `webhooks.timeout_s` is
`VAULT_STREAM_WEBHOOKS__TIMEOUT_S`. What no single field can know is in `checks`.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.observability.logging import LogError, parse_levels, parse_output
from app.settings.fields import (
    Brokers,
    DnsName,
    EncryptionKeys,
    FaultPoint,
    Folder,
    HeaderName,
    Host,
    HttpUrl,
    JsonList,
    PlainName,
    Port,
    PortOrOff,
    ProxyUrl,
    ReadableFile,
    Schedule,
    Sha256,
    SigningKeys,
    Targets,
    Token,
    host_of,
    in_url,
    is_wildcard,
    route,
    seconds,
)

DAY_S: Final = 86_400
RETRY_SCHEDULE_S: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""The wait before attempt 1, 2, 3 … (contracts section 2)."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ApiToken(_Group):
    """One named caller of the API: `sha256` is the digest of the token, which is kept nowhere."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")]
    role: Literal["viewer", "admin"]
    sha256: Annotated[Sha256, Field(repr=False)]


class ApiSettings(_Group):
    """Who may call the API, and where the command line finds it."""

    admin_token: Token | None = None
    viewer_token: Token | None = None
    tokens: Annotated[tuple[ApiToken, ...], JsonList] = ()
    url: HttpUrl = ""

    @property
    def open(self) -> bool:
        """Whether no token is configured, so that the API answers on loopback only."""
        return not (self.admin_token or self.viewer_token or self.tokens)


class KafkaSettings(_Group):
    """How to speak to the brokers."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca: ReadableFile | None = None
    ssl_cert: ReadableFile | None = None
    ssl_key: ReadableFile | None = None


class WebhookSettings(_Group):
    """Deliveries: schedule, limits, retention, targets and keys."""

    retry_schedule_s: Schedule = RETRY_SCHEDULE_S
    max_retries: Annotated[int, Field(ge=1, le=50)] | None = None
    retry_delay_s: Annotated[float, seconds(0, DAY_S)] | None = None
    timeout_s: Annotated[float, seconds(0.1, 300)] = 15.0
    max_concurrent: Annotated[int, Field(ge=2, le=10_000)] = 256
    max_in_flight: Annotated[int, Field(ge=1, le=5_000)] = 32
    pace_after_failures: Annotated[int, Field(ge=0, le=10_000)] = 10
    pace_after_s: Annotated[float, seconds(0, DAY_S)] = 10.0
    pace_max_gap_s: Annotated[float, seconds(1, 3600)] = 30.0
    history_ttl_s: Annotated[float, seconds(0.2, 90 * DAY_S)] = 86_400.0
    failed_ttl_s: Annotated[float, seconds(0.2, 90 * DAY_S)] = 604_800.0
    disable_after_s: Annotated[float, seconds(1, 90 * DAY_S)] = 432_000.0
    max_age_s: Annotated[float, seconds(1, 90 * DAY_S)] = 604_800.0
    allow_http: bool = False
    allow_targets: Targets = ()
    egress_proxy: ProxyUrl | None = None
    origin: DnsName = ""
    ssl_ca: ReadableFile | None = None
    signing_keys: SigningKeys = ()
    encryption_keys: EncryptionKeys = ()

    @model_validator(mode="after")
    def _linear_schedule(self) -> WebhookSettings:
        """The source document's retry: attempt n + 1 waits n times the delay, `max_retries` attempts in all."""
        if self.max_retries and self.retry_delay_s is not None and "retry_schedule_s" not in self.model_fields_set:
            steps = tuple(attempt * self.retry_delay_s for attempt in range(self.max_retries))
            # The only write to a frozen value, while it is being made.
            object.__setattr__(self, "retry_schedule_s", steps)
        return self


class UpstreamSettings(_Group):
    """What all three upstreams have in common; without an endpoint the integration is off."""

    endpoint: HttpUrl | None = None
    token: Token | None = None
    timeout_s: Annotated[float, seconds(0.1, 600)] = 10.0
    connect_timeout_s: Annotated[float, seconds(0.1, 600)] = 5.0
    auth_header: HeaderName = "Authorization"
    idempotency_header: HeaderName = "Idempotency-Key"
    ssl_ca: ReadableFile | None = None
    ssl_cert: ReadableFile | None = None
    ssl_key: ReadableFile | None = None
    proxy: ProxyUrl | None = None


class GovernanceSettings(UpstreamSettings):
    """The governance dashboard: audit batches and reports."""

    timeout_s: Annotated[float, seconds(0.1, 600)] = 30.0
    buffer_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    buffer_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    flush_interval_s: Annotated[float, seconds(0.05, 3600)] = 5.0
    retention_d: Annotated[int, Field(ge=1, le=36_500)] = 365
    batch_first_header: HeaderName = "X-Batch-First-Offset"
    batch_last_header: HeaderName = "X-Batch-Last-Offset"
    path_audit_batch: Annotated[str, route()] = "/api/v1/audit/events/batch"
    path_reports: Annotated[str, route("type")] = "/api/v1/reports/{type}"


class PolicySettings(UpstreamSettings):
    """The policy engine: evaluation, its cache, and violation reports."""

    timeout_s: Annotated[float, seconds(0.1, 600)] = 5.0
    dialect: Literal["vault", "authzen"] = "vault"
    cache_ttl_s: Annotated[float, seconds(0, DAY_S)] = 300.0
    deny_ttl_s: Annotated[float, seconds(0, DAY_S)] = 30.0
    audit: Literal["async", "sync"] = "async"
    max_clock_skew_s: Annotated[float, seconds(0, 300)] = 2.0
    authzen_subject_type: Annotated[str, Field(min_length=1, max_length=256)] = "principal"
    authzen_resource_type: Annotated[str, Field(min_length=1, max_length=256)] = "resource"
    path_evaluate: Annotated[str, route()] = "/api/v1/evaluate/access"
    path_applicable: Annotated[str, route("resource")] = "/api/v1/policies/applicable/{resource}"
    path_violations: Annotated[str, route()] = "/api/v1/violations"
    path_authzen_evaluation: Annotated[str, route()] = "/access/v1/evaluation"


class RegistrySettings(UpstreamSettings):
    """The dataset registry: push, pull, or both."""

    sync_mode: Literal["push", "pull", "both"] = "push"
    sync_interval_s: Annotated[float, seconds(1, DAY_S)] = 60.0
    path_datasets: Annotated[str, route()] = "/api/v1/datasets"
    path_dataset: Annotated[str, route("id")] = "/api/v1/datasets/{id}"
    path_model_datasets: Annotated[str, route("model_id")] = "/api/v1/models/{model_id}/datasets"


def _log_level(value: str) -> str:
    try:
        parse_levels(value)
    except LogError as error:
        raise ValueError(str(error)) from None
    return value


def _log_output(value: str) -> str:
    try:
        parse_output(value)
    except LogError as error:
        raise ValueError(str(error)) from None
    return value


class HealthSettings(_Group):
    """When others are told that an upstream is degraded, or restored."""

    degraded_after_s: Annotated[float, seconds(0, DAY_S)] = 30.0
    restored_after_s: Annotated[float, seconds(0, DAY_S)] = 30.0


class LogSettings(_Group):
    """The log: its form, levels (also per target) and where it goes."""

    format: Literal["json", "pretty", "compact"] = "json"
    level: Annotated[str, AfterValidator(_log_level)] = "info"
    output: Annotated[str, AfterValidator(_log_output)] = "stdout"


class TracingSettings(_Group):
    """Traces; off without an endpoint."""

    endpoint: HttpUrl | None = None
    service_name: Annotated[str, Field(min_length=1, max_length=255)] = "vault-stream"
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0


class Settings(_Group):
    """All settings, checked. `load_settings` makes them; nothing else reads the environment.

    Attributes:
        sources: The origin of each variable that has one other than its default: variable name to `environment`,
            `.env`, `secrets dir` or `data dir`.
    """

    brokers: Brokers = "localhost:9092"
    app_id: PlainName = "vault-stream"
    topic_prefix: PlainName = "vault"
    topic_layout: Literal["per_type", "single"] = "per_type"
    partitions: Annotated[int, Field(ge=1, le=1024)] = 12
    replication: Annotated[int, Field(ge=1, le=32)] = 1
    data_dir: Path = Path(".vault-stream")
    instance_id: PlainName = Field(default_factory=lambda: f"worker-{secrets.token_hex(4)}")
    web_host: Host = "127.0.0.1"
    web_port: Port = 8088
    public_url: HttpUrl = ""
    stats_port: PortOrOff = 6066
    checkpoint_interval_s: Annotated[float, seconds(0.01, 60)] = 0.2
    session_timeout_s: Annotated[float, seconds(6, 300)] = 10.0
    secrets_dir: Folder | None = None
    api: ApiSettings = ApiSettings()
    kafka: KafkaSettings = KafkaSettings()
    webhooks: WebhookSettings = WebhookSettings()
    governance: GovernanceSettings = GovernanceSettings()
    policy: PolicySettings = PolicySettings()
    registry: RegistrySettings = RegistrySettings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    fault: FaultPoint | None = None
    faults_allowed: bool = False
    sources: dict[str, str] = Field(default_factory=dict, exclude=True, repr=False)

    @model_validator(mode="after")
    def _derived_addresses(self) -> Settings:
        """Where this worker is reached and what it is called, when nobody said so: by the listener's own address."""
        listener = f"http://{in_url(self.web_host)}:{self.web_port}"
        if not self.public_url:
            object.__setattr__(self, "public_url", listener)
        if not self.api.url:
            reached = listener
            if is_wildcard(self.web_host):
                loopback = "[::1]" if ":" in self.web_host else "127.0.0.1"
                reached = f"http://{loopback}:{self.web_port}"
            object.__setattr__(self, "api", self.api.model_copy(update={"url": reached}))
        if not self.webhooks.origin:
            origin = host_of(self.public_url)
            object.__setattr__(self, "webhooks", self.webhooks.model_copy(update={"origin": origin}))
        return self
