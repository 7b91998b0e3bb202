"""What no single field can know: the refusals of contracts 8.2 that compare settings with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.settings.fields import is_loopback, is_wildcard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.settings.model import KafkaSettings, Settings, UpstreamSettings


@dataclass(frozen=True, slots=True)
class Problem:
    """One line for the person who configures.

    Attributes:
        names: The variables it is about, without prefix; the first one leads the line.
        fix: What the first one must be.
    """

    names: tuple[str, ...]
    fix: str


def problems(settings: Settings, given: set[str]) -> Iterator[Problem]:
    """All refusals that apply.

    Args:
        settings: Settings whose fields are valid one by one.
        given: The variables (without prefix) that some source sets.
    """
    yield from _listener(settings, given)
    yield from _tokens(settings)
    yield from _kafka(settings)
    yield from _webhooks(settings, given)
    yield from _pairs(settings)
    yield from _headers(settings)
    if settings.fault and not settings.faults_allowed:
        yield Problem(("FAULT",), "is accepted only with VAULT_STREAM_FAULTS_ALLOWED=1; unset it")


def _listener(settings: Settings, given: set[str]) -> Iterator[Problem]:
    if not is_loopback(settings.web_host) and settings.api.open:
        yield Problem(
            ("WEB_HOST", "API__ADMIN_TOKEN", "API__VIEWER_TOKEN", "API__TOKENS"),
            "must be a loopback address unless API__ADMIN_TOKEN, API__VIEWER_TOKEN or API__TOKENS is set; set one",
        )
    if is_wildcard(settings.web_host) and "PUBLIC_URL" not in given:
        yield Problem(
            ("PUBLIC_URL", "WEB_HOST"),
            "must be set when WEB_HOST is a wildcard: the URL at which other workers reach this one",
        )


def _tokens(settings: Settings) -> Iterator[Problem]:
    admin, viewer = settings.api.admin_token, settings.api.viewer_token
    if admin and viewer and admin.get_secret_value() == viewer.get_secret_value():
        yield Problem(("API__VIEWER_TOKEN", "API__ADMIN_TOKEN"), "must differ from API__ADMIN_TOKEN")
    names = [token.name for token in settings.api.tokens]
    if len(set(names)) != len(names):
        yield Problem(("API__TOKENS",), "must give each token its own name")
    if len({token.sha256 for token in settings.api.tokens}) != len(names):
        yield Problem(("API__TOKENS",), "must give each token its own sha256")


def _kafka(settings: Settings) -> Iterator[Problem]:
    kafka = settings.kafka
    sasl = {
        "KAFKA__SASL_MECHANISM": kafka.sasl_mechanism,
        "KAFKA__SASL_USERNAME": kafka.sasl_username,
        "KAFKA__SASL_PASSWORD": kafka.sasl_password,
    }
    wanted = kafka.security_protocol.startswith("SASL_")
    for name, value in sasl.items():
        if wanted and value is None:
            yield Problem((name, "KAFKA__SECURITY_PROTOCOL"), "must be set with this KAFKA__SECURITY_PROTOCOL")
        if not wanted and value is not None:
            fix = "has no effect unless KAFKA__SECURITY_PROTOCOL is SASL_SSL or SASL_PLAINTEXT; set that or unset this"
            yield Problem((name, "KAFKA__SECURITY_PROTOCOL"), fix)


def _webhooks(settings: Settings, given: set[str]) -> Iterator[Problem]:
    webhooks = settings.webhooks
    linear = ("WEBHOOKS__MAX_RETRIES", "WEBHOOKS__RETRY_DELAY_S")
    set_here = [name for name in linear if name in given]
    if set_here and "WEBHOOKS__RETRY_SCHEDULE_S" in given:
        yield Problem(
            ("WEBHOOKS__RETRY_SCHEDULE_S", *linear),
            f"cannot be combined with {' and '.join(set_here)}; unset one kind",
        )
    elif len(set_here) == 1:
        missing = linear[1] if set_here[0] == linear[0] else linear[0]
        yield Problem((missing, *set_here), f"must be set together with {set_here[0]}")
    for name, ttl_s in (("HISTORY_TTL_S", webhooks.history_ttl_s), ("FAILED_TTL_S", webhooks.failed_ttl_s)):
        if ttl_s < 2 * webhooks.timeout_s:
            yield Problem(
                (f"WEBHOOKS__{name}", "WEBHOOKS__TIMEOUT_S"),
                f"must be at least twice WEBHOOKS__TIMEOUT_S, {2 * webhooks.timeout_s:g}",
            )
    if webhooks.max_in_flight > webhooks.max_concurrent // 2:
        yield Problem(
            ("WEBHOOKS__MAX_IN_FLIGHT", "WEBHOOKS__MAX_CONCURRENT"),
            f"must be at most half of WEBHOOKS__MAX_CONCURRENT, {webhooks.max_concurrent // 2}",
        )


def _pairs(settings: Settings) -> Iterator[Problem]:
    groups: dict[str, KafkaSettings | UpstreamSettings] = {
        "KAFKA": settings.kafka,
        "GOVERNANCE": settings.governance,
        "POLICY": settings.policy,
        "REGISTRY": settings.registry,
    }
    for group, values in groups.items():
        if (values.ssl_cert is None) != (values.ssl_key is None):
            names = (f"{group}__SSL_CERT", f"{group}__SSL_KEY")
            missing, there = names if values.ssl_cert is None else names[::-1]
            yield Problem((missing, there), f"must be set together with {there}")


def _headers(settings: Settings) -> Iterator[Problem]:
    """One header has one meaning: the token's would replace another of the same name."""
    for group in ("governance", "policy", "registry"):
        values: UpstreamSettings = getattr(settings, group)
        taken = dict.fromkeys(("content-type", "accept", "accept-encoding", "user-agent", "host", "content-length"), "")
        for name in ("auth_header", "idempotency_header", "batch_first_header", "batch_last_header"):
            header = str(getattr(values, name, "")).lower()
            variable = f"{group.upper()}__{name.upper()}"
            if header in taken:
                other = taken[header]
                fix = f"must be another header than {other}" if other else f"must be no header of HTTP itself, {header}"
                yield Problem((variable, *filter(None, [other])), fix)
            elif header:
                taken[header] = variable
