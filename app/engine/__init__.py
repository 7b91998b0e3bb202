"""Faust made sound: slices, units of work, fenced checkpoints, restore, ownership.

The only package that imports Faust or rocksdict; it knows nothing of the vault.
"""

from app.engine.versions import check_versions

# Before anything imports them: another version may fail at its import, with a reason that nobody understands.
check_versions()

from app.brokers import Connection
from app.engine.agent import Agent, Clock, Context, Processor, slice_handler
from app.engine.errors import (
    CheckpointFailed,
    EngineError,
    NotMember,
    OutputFailed,
    OutputTooLarge,
    PositionRefused,
    ProducerTaken,
    Retriable,
    Revoked,
    RowTooLarge,
    StartRefused,
    StoreDamaged,
    StoreError,
    StoreFailed,
)
from app.engine.log_stream import LogUnreadable
from app.engine.outputs import Message, Outputs
from app.engine.ownership import Owner, Ownership
from app.engine.records import Header, Record, Slice
from app.engine.restore import Replica
from app.engine.table import Table
from app.engine.topic_log import LogUnavailable, Placed, TopicLog
from app.engine.unit import Unit

__all__ = [
    "Agent",
    "CheckpointFailed",
    "Clock",
    "Connection",
    "Context",
    "EngineError",
    "Header",
    "LogUnavailable",
    "LogUnreadable",
    "Message",
    "NotMember",
    "OutputFailed",
    "OutputTooLarge",
    "Outputs",
    "Owner",
    "Ownership",
    "Placed",
    "PositionRefused",
    "Processor",
    "ProducerTaken",
    "Record",
    "Replica",
    "Retriable",
    "Revoked",
    "RowTooLarge",
    "Slice",
    "StartRefused",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "Table",
    "TopicLog",
    "Unit",
    "slice_handler",
]
