"""Exit code 0 if the worker in this container answers `/health/live` with 200; another path as the argument.

Standard library only, without the proxy of the environment.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

OK = 200


def main() -> int:
    """Ask once."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/health/live"
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("VAULT_STREAM_WEB_PORT") or 8088), timeout=4)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"{path}: {error!r}\n")
        return 1
    sys.stderr.write(f"{path}: {status}\n")
    return 0 if status == OK else 1


if __name__ == "__main__":
    sys.exit(main())
