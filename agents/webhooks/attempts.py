"""One POST, and what came of it: row, attempt, dead letter, health and the end of the record, in one unit."""

from __future__ import annotations

from functools import cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from agents.webhooks.holdings import Flight
from app.observability import metrics
from app.observability.logging import TRACE_ID
from app.observability.trace_ids import exemplar_of, ids_of
from app.webhooks.census import attempt_class
from app.webhooks.delivery import Answered, Delivery, NotMade, transition
from app.webhooks.derived import HEALTH_TYPES
from app.webhooks.errors import MissingKey
from app.webhooks.health import WELL, after_attempt, first_news
from app.webhooks.model import Reason, WebhookState
from app.webhooks.scheduler import Result
from app.webhooks.sender import NO_PROXY
from tables.delivery_ledger import HOLD_STEP_MS
from tables.webhooks import WEBHOOKS, webhook_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.webhooks.holdings import Holdings
    from app.engine import Record, Unit
    from app.webhooks.delivery import Step
    from app.webhooks.model import DeliveryRow
    from app.webhooks.owned import OwnedWebhook
    from app.webhooks.sender import AttemptOutcome

__all__ = ["Attempts"]

# A receiver that takes so long for each answer could hold every slot of the worker though it never fails.
SLOW_MS: Final = 1000
# After these answers nothing more may start until they are written: the webhook is held, or disabled.
_STOPPING: Final = frozenset({HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS})
# Looked up once: one is counted at each delivery.
_attempted = cache(lambda label: metrics.adder(metrics.ATTEMPTS.labels(label)))


class Attempts:
    """Makes the attempts of one number.

    Args:
        holdings: The number.
        end: Called with a webhook that is not active, once an attempt of it is over.
    """

    def __init__(self, holdings: Holdings, end: Callable[[str], None]) -> None:
        self._holdings = holdings
        self._end = end

    def take_off(self, row: DeliveryRow, *, stored: DeliveryRow | None = None, record: Record | None = None) -> Flight:
        """A delivery has its slot."""
        flight = Flight(row, stored, record)
        self._holdings.lift(flight)
        return flight

    def launch(self, flight: Flight) -> None:
        """Make the attempt, beside everything else."""
        self._holdings.context.spawn(self._fly(flight))

    async def _fly(self, flight: Flight) -> None:
        holdings, row = self._holdings, flight.row
        await holdings.context.until_may_act()
        started_ms = holdings.context.clock.now_ms()
        if (ids := ids_of(row.traceparent)) is not None:
            # The task is this attempt's own.
            TRACE_ID.set(ids[0])
        webhook = holdings.webhooks[row.webhook_id]
        flight.url = webhook.row.url
        holdings.census.flies(1)
        try:
            request = webhook.request(row, started_ms)
        except MissingKey:
            # There was a key when the slot was given; it was changed since, and needs one that is not here.
            holdings.has_key(webhook, holdings.now)
            await holdings.context.submit(partial(self._put_back, flight, Reason.NO_KEY, "no_key"))
            return
        outcome = await holdings.deps.sender.post(request)
        if outcome.error == NO_PROXY:
            holdings.scheduler.without_proxy(row.webhook_id, holdings.now)
            await holdings.context.submit(partial(self._put_back, flight, Reason.SLOT, NO_PROXY))
            return
        # A replayed event may be years old.
        if row.attempts == 0 and row.event_time_ms is not None and row.request_id is None:
            waited_s = max(0, started_ms - row.event_time_ms) / 1000
            metrics.EVENT_TO_POST_SECONDS.observe(waited_s, exemplar_of(row.traceparent))
        holdings.answered(flight, _result(outcome), stops=outcome.status in _STOPPING)
        await holdings.context.submit(partial(self._settle, flight, outcome, started_ms))

    def _put_back(self, flight: Flight, reason: Reason, label: str, unit: Unit) -> None:
        """It was no attempt: nobody is told of one, and nothing is said of the webhook."""
        holdings, row = self._holdings, flight.row
        now_ms, webhook = holdings.context.clock.now_ms(), holdings.webhooks[row.webhook_id]
        event = NotMade(reason, webhook.row.state)
        step = transition(Delivery(row, in_flight=True), event, now_ms, webhook.terms)
        holdings.ledger.write(unit, row, step, now_ms)
        if flight.record is not None:
            unit.finish(flight.record)
        unit.on_done(partial(self._land, flight, step, Result.NOTHING, label))

    def _settle(self, flight: Flight, outcome: AttemptOutcome, started_ms: int, unit: Unit) -> None:
        holdings, row = self._holdings, flight.row
        now_ms, webhook = holdings.context.clock.now_ms(), holdings.webhooks[row.webhook_id]
        answered = Answered(
            started_ms=started_ms,
            duration_ms=outcome.duration_ms,
            status_code=outcome.status,
            error=outcome.error,
            response_body=outcome.body,
            retry_after_s=outcome.retry_after_s,
            webhook=webhook.row.state,
            moved=flight.url != webhook.row.url,
            uniform=holdings.deps.uniform,
        )
        step = transition(Delivery(row, in_flight=True), answered, now_ms, webhook.terms)
        holdings.ledger.write(unit, row, step, now_ms)
        if flight.record is not None:
            unit.finish(flight.record)
        self._judge(webhook, flight, step, outcome, now_ms, unit)
        label = attempt_class(outcome.status, outcome.error)
        unit.on_done(partial(self._land, flight, step, _result(outcome), label))

    def _judge(
        self, webhook: OwnedWebhook, flight: Flight, step: Step, outcome: AttemptOutcome, now_ms: int, unit: Unit
    ) -> None:
        """What an attempt says about the webhook."""
        ok = outcome.delivered
        webhook.note(now_ms, ok=ok)
        if ok and webhook.heart is WELL and webhook.proven:
            return
        holdings, delivery = self._holdings, flight.row
        number = 0 if step.attempt is None else step.attempt.attempt
        webhook.heart, change = after_attempt(
            webhook.heart,
            ok=ok,
            gone=step.disable_webhook,
            attempt=number,
            now_ms=now_ms,
            disable_after_ms=round(holdings.deps.options.disable_after_s * 1000),
            echo=delivery.event_type in HEALTH_TYPES,
        )
        if change is None and step.hold_until_ms is None and webhook.proven:
            return
        # The table's row, as memory may be ahead by a command whose slice is not done yet.
        key = webhook_key(webhook.row.webhook_id)
        row = unit.get(WEBHOOKS, key)
        if row is None:
            return
        if change is not None:
            why = f"{delivery.delivery_id}-{number}"
            row = holdings.ledger.write_health(unit, row, webhook.heart, change, outcome.status, why, now_ms)
            holdings.use(row)
        news = first_news(row, ok=ok, now_ms=now_ms)
        if news is not None and flight.url == row.url:
            row = news
            unit.put(WEBHOOKS, key, row)
            if ok:
                unit.on_done(webhook.prove)
        if step.hold_until_ms is not None:
            holdings.scheduler.hold(row.webhook_id, step.hold_until_ms)
            if step.hold_until_ms > (row.hold_until_ms or 0) + HOLD_STEP_MS:
                row = msgspec.structs.replace(row, hold_until_ms=step.hold_until_ms)
                unit.put(WEBHOOKS, key, row)
                holdings.use(row)

    def _land(self, flight: Flight, step: Step, result: Result, label: str) -> None:
        """What it became is merged; its row may have been written until now (`Holdings.secure_order`)."""
        holdings = self._holdings
        _attempted(label)(1)
        holdings.census.flies(-1)
        try:
            holdings.written(flight.row, flight.stored, step.after.row, back=result is Result.NOTHING)
        finally:
            # In any case, as its slot is the worker's.
            webhook = holdings.land(flight, result)
        if webhook.row.state is not WebhookState.ACTIVE:
            self._end(webhook.row.webhook_id)


def _result(outcome: AttemptOutcome) -> Result:
    if outcome.delivered:
        return Result.SLOW if outcome.duration_ms >= SLOW_MS else Result.SUCCESS
    return Result.TIMEOUT if outcome.error == "timeout" else Result.FAILURE
