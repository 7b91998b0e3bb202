"""The way to the brokers: one connection for every client, and one line for what Kafka refuses.

Files and credentials may change while the process runs: a connection that is made later uses the new ones.

Errors: `TlsFileError`, for a file that is no PEM.
"""

from app.brokers.connection import Connection, connection_to
from app.brokers.refusals import REFUSALS, Refusals, explain, overhear
from app.brokers.tls import TlsFileError

__all__ = ["REFUSALS", "Connection", "Refusals", "TlsFileError", "connection_to", "explain", "overhear"]
