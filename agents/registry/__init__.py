"""Agent `registry`: folds what vault and registry say of datasets into one row each, and tells each of the other.

The table is the queue: only the latest state counts. A record is done when its row is merged; a push is a unit of its
own. Number 0 reads the registry's changes and hands them to the owners of the datasets, over the same topic that the
vault's events come by.
"""

from agents.registry.calls import RegistryPaths
from agents.registry.processor import RegistryOptions, registry_agent
from agents.registry.pushing import LOOK_AHEAD, WINDOW

__all__ = ["LOOK_AHEAD", "WINDOW", "RegistryOptions", "RegistryPaths", "registry_agent"]
