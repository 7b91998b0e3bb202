"""The names of all topics of one deployment."""

from typing import Final

from app.events import vault_topics

TABLES: Final = ("positions", "webhooks", "deliveries", "audit", "decisions", "datasets")
"""The tables of architecture 2; each has one changelog topic."""


class Topics:
    """The names of all topics of one deployment (architecture 2).

    Attributes:
        vault: the 22 topics of the vault's types and, last, `{prefix}.events`: everything that the router reads.
        events: `{prefix}.events`, where our own types travel in both layouts.
    """

    __slots__ = (
        "app_id",
        "attempts",
        "audit",
        "commands",
        "dead_letters",
        "decisions",
        "deliveries",
        "events",
        "invalidations",
        "prefix",
        "quarantine",
        "registry_changes",
        "registry_datasets",
        "vault",
        "violations",
    )

    def __init__(self, prefix: str, app_id: str) -> None:
        self.prefix = prefix
        self.app_id = app_id
        self.vault: tuple[str, ...] = vault_topics(prefix)
        self.events = f"{prefix}.events"
        self.deliveries = f"{prefix}.webhook.deliveries"
        self.commands = f"{prefix}.webhook.commands"
        self.attempts = f"{prefix}.webhook.attempts"
        self.dead_letters = f"{prefix}.webhook.dead-letters"
        self.audit = f"{prefix}.governance.audit"
        self.violations = f"{prefix}.policy.violations"
        self.decisions = f"{prefix}.policy.decisions"
        self.invalidations = f"{prefix}.policy.invalidations"
        self.registry_datasets = f"{prefix}.registry.datasets"
        self.registry_changes = f"{prefix}.registry.changes"
        self.quarantine = f"{prefix}.quarantine"

    def changelog(self, table: str) -> str:
        """The changelog topic of a table."""
        return f"{self.app_id}-{table}-changelog"
