"""`python -m app` is `vault-stream`."""

from app.cli import main

if __name__ == "__main__":
    main()
