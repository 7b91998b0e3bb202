"""`python -m app.reference docs`: writes the pages there."""

from __future__ import annotations

import sys
from pathlib import Path

from app.reference import PAGES

if __name__ == "__main__":
    for name, page in PAGES.items():
        Path(sys.argv[1], name).write_text(page())
