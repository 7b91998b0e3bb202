"""Fixtures and settings that every folder of tests may use."""

import os

from hypothesis import settings

pytest_plugins = ["tests.support.kafka"]

# In CI a failure must be one that anybody can repeat; elsewhere new examples are worth more.
settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")
