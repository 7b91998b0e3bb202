"""Where a setting may come from, which of them goes first, and what is noticed when one changes."""

from pathlib import Path

import pytest

from app.settings import SecretsWatch, Settings, SettingsError, keep_instance_id
from tests.support.settings import KEY, load, refused


def test_the_environment_goes_before_dotenv_and_that_before_the_secrets_folder(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in ("WEB_PORT", "STATS_PORT", "vault_stream_partitions"):
        (folder / name).write_text("1001\n")
    Path(".env").write_text("VAULT_STREAM_WEB_PORT=1002\nVAULT_STREAM_STATS_PORT=1002\nOTHER=1\n")

    settings = load(WEB_PORT="1003", SECRETS_DIR=str(folder))

    assert (settings.web_port, settings.stats_port, settings.partitions) == (1003, 1002, 1001)
    assert settings.sources == {
        "VAULT_STREAM_WEB_PORT": "environment",
        "VAULT_STREAM_SECRETS_DIR": "environment",
        "VAULT_STREAM_STATS_PORT": ".env",
        "VAULT_STREAM_PARTITIONS": "secrets dir",
    }


def test_a_problem_names_the_source_that_is_not_the_environment(tmp_path: Path) -> None:
    (tmp_path / "WEB_PORT").write_text("x")
    (tmp_path / "NONSENSE").write_text("x")
    problems = refused(SECRETS_DIR=str(tmp_path))
    assert all(problem.endswith("(from secrets dir)") for problem in problems)
    assert len(problems) == 2


def test_two_lines_of_dotenv_for_one_setting_are_refused_without_their_values() -> None:
    name = "VAULT_STREAM_WEBHOOKS__ENCRYPTION_KEYS"
    Path(".env").write_text(f'OTHER=1\nOTHER=2\n{name}=["k1:{KEY}"]\n# a note\nexport {name}=["k2:{KEY}"]\n')
    assert refused() == (f"{name}: .env has more than one line for it, of which the last would win; keep one of them",)


def test_dotenv_keeps_a_dollar_as_it_is() -> None:
    Path(".env").write_text("VAULT_STREAM_API__ADMIN_TOKEN='pa$${HOME}x'\n")
    token = load().api.admin_token
    assert token is not None
    assert token.get_secret_value() == "pa$${HOME}x"


def test_the_bookkeeping_of_a_kubernetes_volume_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "API__ADMIN_TOKEN").write_text("t\n")
    token = load(SECRETS_DIR=str(tmp_path)).api.admin_token
    assert token is not None
    assert token.get_secret_value() == "t"


def test_a_secret_that_is_no_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "API__ADMIN_TOKEN").write_bytes(b"\xffhunter2")
    problems = refused(SECRETS_DIR=str(tmp_path))
    assert problems == ("VAULT_STREAM_SECRETS_DIR: not UTF-8; each file must be readable UTF-8, one for a setting",)


def test_two_files_for_one_setting_are_refused(tmp_path: Path) -> None:
    (tmp_path / "WEB_PORT").write_text("1")
    (tmp_path / "web_port").write_text("2")
    assert "two files for VAULT_STREAM_WEB_PORT" in refused(SECRETS_DIR=str(tmp_path))[0]


def test_the_instance_id_is_random_until_it_is_kept(tmp_path: Path) -> None:
    first = load(DATA_DIR=str(tmp_path / "data"))
    assert first.instance_id != load(DATA_DIR=str(tmp_path / "data")).instance_id

    keep_instance_id(first)

    again = load(DATA_DIR=str(tmp_path / "data"))
    assert again.instance_id == first.instance_id
    assert again.sources["VAULT_STREAM_INSTANCE_ID"] == "data dir"


def test_a_configured_instance_id_is_not_kept(tmp_path: Path) -> None:
    keep_instance_id(load(DATA_DIR=str(tmp_path), INSTANCE_ID="worker-7"))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_secret_is_noticed_once(tmp_path: Path) -> None:
    secret = tmp_path / "API__ADMIN_TOKEN"
    secret.write_text("old")
    watch = SecretsWatch(tmp_path, lambda: load(SECRETS_DIR=str(tmp_path)))
    assert watch.poll() is None

    secret.write_text("newer")

    changed = watch.poll()
    assert changed is not None
    assert changed.api.admin_token is not None
    assert changed.api.admin_token.get_secret_value() == "newer"
    assert watch.poll() is None


def test_a_refused_change_is_raised_once_and_the_next_one_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "API__ADMIN_TOKEN"
    secret.write_text("old")
    watch = SecretsWatch(tmp_path, lambda: load(SECRETS_DIR=str(tmp_path)))

    secret.write_text("not a token")

    with pytest.raises(SettingsError):
        watch.poll()
    assert watch.poll() is None
    secret.write_text("better")
    assert watch.poll() is not None


def test_a_change_that_could_not_be_read_is_read_at_the_next_look(tmp_path: Path) -> None:
    failures = [OSError(24, "Too many open files")]

    def load_again() -> Settings:
        if failures:
            raise failures.pop()
        return load(SECRETS_DIR=str(tmp_path))

    watch = SecretsWatch(tmp_path, load_again)
    (tmp_path / "API__ADMIN_TOKEN").write_text("newer")

    with pytest.raises(OSError, match="Too many open files"):
        watch.poll()
    assert watch.poll() is not None
    assert watch.poll() is None


def test_a_secret_that_cannot_be_opened_at_the_moment_is_read_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = SecretsWatch(tmp_path, lambda: load(SECRETS_DIR=str(tmp_path)))
    (tmp_path / "API__ADMIN_TOKEN").write_text("newer")

    def full(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        with pytest.raises(OSError, match="Too many open files"):
            watch.poll()
    changed = watch.poll()
    assert changed is not None
    assert changed.api.admin_token is not None
