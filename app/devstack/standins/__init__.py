"""Stand-ins for the systems around the vault: small, honest HTTP servers on loopback that remember what they were sent.

Each can be told to misbehave in every way that a neighbour does, by its `fault` or, from outside, by `POST /control`
with the fields of `Fault` (and `DELETE /control` to behave again); `GET /observed` says in numbers what it has seen,
and `GET /openapi.json` what it takes and answers. `stop` and `start` on the same object give a refused connection and
then the same address again.
"""

from app.devstack.standins.base import Standin
from app.devstack.standins.dashboard import Dashboard
from app.devstack.standins.faults import Fault
from app.devstack.standins.observing import Observations
from app.devstack.standins.policy import PolicyEngine
from app.devstack.standins.registry import Registry
from app.devstack.standins.rules import Rule

__all__ = ["Dashboard", "Fault", "Observations", "PolicyEngine", "Registry", "Rule", "Standin"]
