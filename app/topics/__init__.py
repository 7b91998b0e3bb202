"""The topics of one deployment: their names, how each must be configured, and how the broker's compare.

`Topics` knows names only. `plan` says what each of them must look like (architecture 2), `check` compares that with a
broker, `apply` creates what is missing and touches nothing else: it never shrinks, alters or deletes.

Errors:

- `TopicError`
    - `BrokerUnreachableError`: no broker answered within the time limit.
    - `BrokerRefusesError`: the login, a certificate or a right is refused; a person must mend that.
    - `TopicCreationError`: the broker refused to create a topic; the message names each one and why.
"""

from app.topics.acls import Acl, AclRole, acls_of, kafka_acls
from app.topics.admin import TopicAdmin, client_config
from app.topics.errors import BrokerRefusesError, BrokerUnreachableError, TopicCreationError, TopicError
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
    "Acl",
    "AclRole",
    "BrokerRefusesError",
    "BrokerUnreachableError",
    "Difference",
    "ExistingTopic",
    "TopicAdmin",
    "TopicBroker",
    "TopicCreationError",
    "TopicError",
    "TopicSpec",
    "Topics",
    "acls_of",
    "apply",
    "check",
    "client_config",
    "kafka_acls",
    "plan",
    "refusal",
    "warnings",
]
