"""Tracing in a worker, put together from its settings and the standard names of the environment.

What makes spans is loaded by the functions that are given a tracer: a worker without traces has nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.engine import StartRefused
from app.observability.tracing import TracingConfig, TracingError, start_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.observability.tracing import Messages, Tracer, Tracing
    from app.settings import Settings
    from app.webhooks.traced_sender import Posts

__all__ = ["messages_of", "sender_of", "tracing_of"]


def tracing_of(settings: Settings, environ: Mapping[str, str]) -> Tracing | None:
    """The tracing of these settings; None if it is off.

    What our own settings say counts before the standard names, and their defaults after them.

    Raises:
        StartRefused: One of either cannot be meant.
    """
    chosen = settings.tracing
    said = chosen.model_fields_set
    config = TracingConfig(
        endpoint=chosen.endpoint,
        service_name=chosen.service_name if "service_name" in said else None,
        sample_ratio=chosen.sample_ratio if "sample_ratio" in said else None,
        instance_id=settings.instance_id,
    )
    try:
        return start_tracing(config, environ)
    except TracingError as error:
        raise StartRefused(str(error)) from None


def messages_of(settings: Settings, tracing: Tracing | None) -> Messages | None:
    """What agents make their spans with."""
    if tracing is None:
        return None
    from app.observability.tracing import Messages  # noqa: PLC0415

    return Messages(tracing.tracer, settings.app_id)


def sender_of(sender: Posts, tracer: Tracer | None) -> Posts:
    """What makes attempts, with a span for each where there is a tracer."""
    if tracer is None:
        return sender
    from app.webhooks.traced_sender import TracedSender  # noqa: PLC0415

    return TracedSender(sender, tracer)
