"""Secrets that change while the process runs: the folder `SECRETS_DIR`, read again when a file in it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.settings.loading import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.settings.model import Settings


class SecretsWatch:
    """Notices a change of the folder; whoever owns the timer calls `poll`.

    Args:
        folder: `settings.secrets_dir`.
        load: Reads all settings anew, as the start did.
    """

    def __init__(self, folder: Path, load: Callable[[], Settings]) -> None:
        self._folder = folder
        self._load = load
        self._seen = self._state()

    def poll(self) -> Settings | None:
        """New settings if a file was added, removed or written since the last call, else None.

        Raises:
            SettingsError: The new content is refused, said once for each change; what runs keeps its old settings.
            OSError: The folder is gone, or a file of it cannot be read now; the next call tries again.
        """
        state = self._state()
        if state == self._seen:
            return None
        before, self._seen = self._seen, state
        try:
            return self._load()
        except SettingsError as error:
            if error.unread is None:
                raise
            self._seen = before
            raise error.unread from None
        except OSError:
            self._seen = before
            raise

    def _state(self) -> frozenset[tuple[str, int, int, int]]:
        # An inode tells a swapped symlink (how Kubernetes updates a volume) from a file with the same size and time.
        stats = ((file.name, file.stat()) for file in self._folder.iterdir() if file.is_file())
        return frozenset((name, stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
