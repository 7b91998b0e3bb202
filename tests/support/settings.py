"""Settings from variables that are named without their prefix, and what is refused of them."""

import base64
import hashlib

import pytest

from app.settings import Settings, SettingsError, load_settings

KEY = base64.b64encode(b"k" * 32).decode()
SHA256 = hashlib.sha256(b"a token").hexdigest()


def load(**variables: str) -> Settings:
    return load_settings({f"VAULT_STREAM_{name}": text for name, text in variables.items()})


def refused(**variables: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    return caught.value.problems
