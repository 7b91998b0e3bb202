"""Compliance reports of the governance dashboard (contracts 4): what is asked, and what counts as an answer.

A report comes in the answer, or as `download_url`, which is fetched from the dashboard's own origin only: the token
must reach nobody else, and a dashboard must not make us ask our own network.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin, urlsplit

import orjson

from app.events import format_time, parse_time_ms
from app.integrations.upstream import Malformed

if TYPE_CHECKING:
    from app.integrations.upstream import Answer, Upstream

__all__ = ["Report", "ReportFormat", "ReportRequest", "ReportType", "Reports", "origin_of"]

_PLAIN_URL: Final = re.compile(r"[\x21-\x5b\x5d-\x7e]+")
_PARTIAL: Final = 206
_PDF_BEGINS: Final = b"%PDF-"
_PAGE_BEGINS: Final = ("<!doctype html", "<html")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class ReportType(StrEnum):
    """The five reports, as they are named on the wire; `parse` takes the source document's spelling, too."""

    GDPR_ARTICLE_30 = "gdpr_article_30"
    SOC2 = "soc2"
    HIPAA = "hipaa"
    ACCESS_SUMMARY = "access_summary"
    DATA_INVENTORY = "data_inventory"

    @property
    def pascal(self) -> str:
        """As in `GdprArticle30`."""
        return "".join(word.capitalize() for word in self.value.split("_"))

    @classmethod
    def parse(cls, text: str) -> ReportType:
        """A type by either spelling.

        Raises:
            ValueError: There is none of this name.
        """
        found = next((one for one in cls if text in {one.value, one.pascal}), None)
        if found is None:
            raise ValueError(f"one of {', '.join(cls)}")
        return found


class ReportFormat(StrEnum):
    """What a report is written in; `parse` takes `Pdf`, too."""

    PDF = "pdf"
    JSON = "json"
    CSV = "csv"

    @classmethod
    def parse(cls, text: str) -> ReportFormat:
        """A format by either spelling.

        Raises:
            ValueError: There is none of this name.
        """
        found = next((one for one in cls if text in {one.value, one.value.capitalize()}), None)
        if found is None:
            raise ValueError(f"one of {', '.join(cls)}")
        return found


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What is asked.

    Attributes:
        start_ms: Of the time that it is about; milliseconds since 1970.
        end_ms: After `start_ms`.
        scope: What part of the vault, in the dashboard's words.
    """

    type: ReportType
    start_ms: int
    end_ms: int
    format: ReportFormat = ReportFormat.JSON
    scope: str | None = None

    def body(self) -> bytes:
        """As it is sent."""
        sent: dict[str, Any] = {
            "start_date": format_time(self.start_ms),
            "end_date": format_time(self.end_ms),
            "format": self.format.value,
        }
        if self.scope is not None:
            sent["scope"] = self.scope
        return orjson.dumps(sent)


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    Attributes:
        content: JSON: an object; CSV: text; PDF: base64.
        download_url: Where the dashboard keeps it, if it says so and that is a place of its own.
    """

    id: str
    type: ReportType
    format: ReportFormat
    generated_at: str
    content: dict[str, Any] | str
    download_url: str | None = None

    def show(self) -> dict[str, Any]:
        """As the API answers with it."""
        shown: dict[str, Any] = {
            "id": self.id,
            "report_type": self.type.value,
            "generated_at": self.generated_at,
            "format": self.format.value,
            "content": self.content,
        }
        if self.download_url is not None:
            shown["download_url"] = self.download_url
        return shown


class Reports:
    """Asks the dashboard for reports.

    Args:
        dashboard: At its endpoint.
        downloads: The same server, at the root of the endpoint's origin.
        endpoint: Its URL.
        path: With `{type}`.
    """

    def __init__(self, dashboard: Upstream, downloads: Upstream, endpoint: str, path: str) -> None:
        self._dashboard = dashboard
        self._downloads = downloads
        self._endpoint = endpoint
        self._path = path

    async def generate(self, request: ReportRequest) -> Report:
        """One report.

        Raises:
            Unavailable: Later, perhaps.
            Rejected: The dashboard does not make this one.
            Malformed: What it answered is no report.
        """
        path = self._path.replace("{type}", quote(request.type.value, safe=""))
        answer = await self._dashboard.send("POST", path, request.body())
        found = answer.json()
        if not isinstance(found, dict):
            raise _malformed("is no object", answer)
        _require(found, request, answer)
        url = self._own(found.get("download_url"))
        content = found.get("content")
        if content is None:
            content = await self._downloaded(url, request.format)
        elif not _fits(content, request.format):
            raise _malformed(f"has a content that is no {request.format.value}", answer)
        return Report(found["id"], request.type, request.format, found["generated_at"], content, url)

    def _own(self, url: Any) -> str | None:
        """An address on the endpoint's own origin, None for any other."""
        if not isinstance(url, str) or not _PLAIN_URL.fullmatch(url):
            return None
        absolute = urljoin(f"{self._endpoint}/", url)
        try:
            return absolute if origin_of(absolute) == origin_of(self._endpoint) else None
        except ValueError:
            return None

    async def _downloaded(self, url: str | None, format_: ReportFormat) -> dict[str, Any] | str:
        if url is None:
            raise Malformed("the report has neither a content nor a download_url on the dashboard's own origin")
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        answer = await self._downloads.send("GET", target, headers={"Accept": "*/*"})
        if not answer.complete or answer.status == _PARTIAL:
            raise _malformed("is too large, or broke off", answer)
        if answer.compressed or answer.is_page:
            raise _malformed("is compressed" if answer.compressed else "is a web page", answer)
        content: Any
        if format_ is ReportFormat.JSON:
            content = answer.json()
        elif format_ is ReportFormat.PDF:
            content = base64.b64encode(answer.body).decode()
        else:
            try:
                content = answer.body.decode()
            except UnicodeDecodeError:
                raise _malformed("is no text in UTF-8", answer) from None
        if not _fits(content, format_):
            raise _malformed(f"is no {format_.value}", answer)
        return content  # type: ignore[no-any-return]  # `_fits` has looked


def origin_of(url: str) -> str:
    """Scheme, host and port, as in `https://dashboard.example:443`.

    Raises:
        ValueError: It is no http or https URL, or has a user name.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("no http or https URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}"


def _require(found: dict[str, Any], request: ReportRequest, answer: Answer) -> None:
    if not isinstance(found.get("id"), str) or not found["id"]:
        raise _malformed("has no id", answer)
    try:
        same = ReportType.parse(str(found.get("report_type"))) is request.type
        parse_time_ms(str(found.get("generated_at")))
    except ValueError:
        raise _malformed("has no report_type or generated_at that can be read", answer) from None
    if not same:
        raise _malformed("is of another type than was asked for", answer)


def _fits(content: Any, format_: ReportFormat) -> bool:
    if format_ is ReportFormat.JSON:
        return isinstance(content, dict)
    if not isinstance(content, str):
        return False
    if format_ is ReportFormat.CSV:
        begin = content.lstrip("\ufeff \t\r\n")[:16].lower()
        return bool(begin) and not begin.startswith(_PAGE_BEGINS)
    try:
        return base64.b64decode(content, validate=True).startswith(_PDF_BEGINS)
    except ValueError:
        return False


def _malformed(what: str, answer: Answer) -> Malformed:
    return Malformed(f"the report {what}", status=answer.status)
