"""`vault-stream worker`: the processor."""

import click

__all__ = ["worker"]


@click.command()
def worker() -> None:
    """Run the processor, configured by VAULT_STREAM_* settings (see `vault-stream config`).

    Exits 0 after SIGTERM or Ctrl-C (a second one skips the drain), 1 when it must not start, and 70 when it is stuck
    and wants its supervisor to start it again.

    Example: VAULT_STREAM_BROKERS=localhost:9092 vault-stream worker
    """
    from app.engine import StartRefused  # noqa: PLC0415  # Faust is imported by those who run it
    from app.main import run_worker  # noqa: PLC0415
    from app.observability.logging import LogError  # noqa: PLC0415

    try:
        run_worker()
    except (StartRefused, LogError) as error:
        raise click.ClickException(str(error)) from None
