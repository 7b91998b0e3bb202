"""The topics of one deployment: their names, how each must be configured, and how the broker's compare.

`Topics` knows names only. `plan` says what each of them must look like (architecture 2), `check` compares that with a
broker, `apply` creates what is missing and touches nothing else: it never shrinks, alters or deletes.

Errors:

- `TopicError`
    - `BrokerUnreachableError`: no broker answered within the time limit.
    - `TopicCreationError`: the broker refused to create a topic; the message names each one and why.
"""

from app.topics.admin import TopicAdmin, client_config
from app.topics.errors import BrokerUnreachableError, TopicCreationError, TopicError
from app.topics.names import TABLES, Topics
from app.topics.planning import (
    QUARANTINE_MAX_BYTES,
    Difference,
    ExistingTopic,
    TopicBroker,
    TopicSpec,
    apply,
    check,
    plan,
    refusal,
    warnings,
)

__all__ = [
    "QUARANTINE_MAX_BYTES",
    "TABLES",
    "BrokerUnreachableError",
    "Difference",
    "ExistingTopic",
    "TopicAdmin",
    "TopicBroker",
    "TopicCreationError",
    "TopicError",
    "TopicSpec",
    "Topics",
    "apply",
    "check",
    "client_config",
    "plan",
    "refusal",
    "warnings",
]
