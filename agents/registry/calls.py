"""The registry's routes (contracts 5): one dataset, one link or one page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from app.events import canonical_json, format_time
from app.integrations.registry import document
from app.integrations.registry_links import link_body, link_key
from app.integrations.registry_pull import Page, read_page
from app.integrations.upstream import Malformed, Rejected, Unavailable, trace_headers

if TYPE_CHECKING:
    from app.integrations.registry import DatasetRow, Link, PullCursor
    from app.integrations.upstream import Answer, Upstream

__all__ = ["CONFLICT", "GONE", "Pushed", "Refused", "RegistryCalls", "RegistryPaths"]

CONFLICT: Final = 409
GONE: Final = 404
# An id goes into a row and a record, which have limits of their own; whoever answers with more has none.
_MAX_ID_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class RegistryPaths:
    """Where the registry takes what.

    Attributes:
        datasets: Of the upsert, and of the list of changes.
        dataset: Of the deletion; `{id}` is the dataset id, percent-encoded.
        model_datasets: Of a link; `{model_id}` is the model id, percent-encoded.
    """

    datasets: str = "/api/v1/datasets"
    dataset: str = "/api/v1/datasets/{id}"
    model_datasets: str = "/api/v1/models/{model_id}/datasets"


@dataclass(frozen=True, slots=True)
class Pushed:
    """The registry has it.

    Attributes:
        registration_id: Its name for the dataset; None after a deletion.
    """

    registration_id: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The registry will not take it.

    Attributes:
        other_id: What it holds in its place, if that is why.
    """

    status: int
    other_id: str | None = None


class RegistryCalls:
    """Each call is one request; a repeat of one state has one idempotency key."""

    def __init__(self, registry: Upstream, paths: RegistryPaths) -> None:
        self._registry = registry
        self._paths = paths

    async def push(self, row: DatasetRow) -> Pushed | Refused:
        """Tell the state of a dataset.

        Raises:
            Unavailable: Later, perhaps; also where the answer does not say under which id the registry has it.
        """
        headers = {
            "Idempotency-Key": f"{quote(row.id, safe='')}:{row.version}",
            **trace_headers({"traceparent": row.traceparent}),
        }
        told = document(row)
        try:
            if told is None:
                path = self._paths.dataset.replace("{id}", quote(row.id, safe=""))
                await self._registry.send("DELETE", path, headers=headers, accept={GONE})
                return Pushed(None)
            answer = await self._registry.send(
                "POST", self._paths.datasets, canonical_json(told), headers=headers, accept={CONFLICT}
            )
        except Rejected as error:
            return Refused(error.status or 0)
        try:
            found = _id_in(answer)
        except Malformed as error:
            if answer.status == CONFLICT:
                return Refused(CONFLICT)
            raise Unavailable(str(error), status=error.status) from None
        if answer.status == CONFLICT and found not in {row.id, row.registration_id}:
            return Refused(CONFLICT, found)
        return Pushed(found)

    async def link(self, row: DatasetRow, link: Link) -> Pushed | Refused:
        """Tell of a link; one that is there already is as good.

        Raises:
            Unavailable: Later, perhaps; also while the registry knows no such model.
        """
        path = self._paths.model_datasets.replace("{model_id}", quote(link.model_id, safe=""))
        headers = {"Idempotency-Key": quote(link_key(row, link), safe=":")}
        try:
            await self._registry.send(
                "POST", path, canonical_json(link_body(row, link)), headers=headers, accept={CONFLICT}
            )
        except Rejected as error:
            return Refused(error.status or 0)
        return Pushed(row.registration_id)

    async def changes(self, place: PullCursor) -> Page:
        """A page of what has changed.

        Raises:
            Unavailable: Later, perhaps.
            Rejected: It does not know the cursor, say.
            Malformed: The answer is no page.
        """
        asked = {} if place.since_ms is None else {"updated_since": format_time(place.since_ms)}
        if place.cursor is not None:
            asked["cursor"] = place.cursor
        path = self._paths.datasets + (f"?{urlencode(asked, quote_via=quote)}" if asked else "")
        return read_page((await self._registry.send("GET", path)).json())


def _id_in(answer: Answer) -> str:
    """The registration id in an answer.

    Raises:
        Malformed: There is none: whoever answered like that need not be a registry at all.
    """
    found = answer.object().get("id")
    if not isinstance(found, str) or not 0 < len(found) <= _MAX_ID_CHARS:
        raise Malformed("the answer has no id", status=answer.status)
    return found
