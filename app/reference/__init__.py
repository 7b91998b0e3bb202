"""Pages of the documentation that the code writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.observability.reference import metrics_page
from app.settings.reference import settings_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PAGES"]

PAGES: Final[Mapping[str, Callable[[], str]]] = {"settings.md": settings_page, "metrics.md": metrics_page}
"""By their name in `docs/`."""
