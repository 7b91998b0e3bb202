"""Leaves a position before a transaction marker until a record comes after it."""

from app.engine.intake import Intake


def apply() -> None:
    Intake.pass_by = lambda *_: None
