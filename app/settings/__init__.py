"""The settings of the program: one value, read once from the environment, `.env` and a folder of secrets.

    settings = load_settings()
    settings.webhooks.timeout_s

Names, defaults and refusals are those of contracts 8.2. Only `app.main`, `app.cli` and `app.web` import this package:
domain code is handed values.

Errors: `SettingsError`, whose text is one line for each problem.
"""

from app.settings.catalogue import VARIABLES, Variable
from app.settings.loading import SettingsError, keep_instance_id, load_settings
from app.settings.model import (
    ApiSettings,
    ApiToken,
    GovernanceSettings,
    KafkaSettings,
    LogSettings,
    PolicySettings,
    RegistrySettings,
    Settings,
    TracingSettings,
    UpstreamSettings,
    WebhookSettings,
)
from app.settings.sources import DEFAULT
from app.settings.watching import SecretsWatch

__all__ = [
    "DEFAULT",
    "VARIABLES",
    "ApiSettings",
    "ApiToken",
    "GovernanceSettings",
    "KafkaSettings",
    "LogSettings",
    "PolicySettings",
    "RegistrySettings",
    "SecretsWatch",
    "Settings",
    "SettingsError",
    "TracingSettings",
    "UpstreamSettings",
    "Variable",
    "WebhookSettings",
    "keep_instance_id",
    "load_settings",
]
