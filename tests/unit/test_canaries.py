"""The search for canaries finds what is planted, in every form and place; and the command line lets none out."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import rocksdict
from click.testing import CliRunner

from app.cli import cli
from app.settings import SettingsError, load_settings
from tests.support.canaries import CREDENTIALS, FORMS, MARK, PERSONAL, Watch, marked, webhook_secret
from tests.support.leaks import everything_below, found, rows_of

ROOT = Path(__file__).parents[2]
FORM: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda raw: raw,
    "base64": base64.b64encode,
    "base64 of a header": lambda raw: base64.b64encode(b"Bearer " + raw),
    "base64 of basic credentials": lambda raw: base64.b64encode(b"worker:" + raw),
    "base64 for URLs": base64.urlsafe_b64encode,
    "hex": lambda raw: raw.hex().encode(),
    "HEX": lambda raw: raw.hex().upper().encode(),
    "in a URL": lambda raw: quote(raw, safe="").encode(),
    "in JSON": lambda raw: json.dumps(raw.decode()).encode(),
    "in JSON in JSON": lambda raw: json.dumps(json.dumps(raw.decode())).encode(),
}
SETTINGS = {
    "API__ADMIN_TOKEN": CREDENTIALS["admin token"],
    "API__VIEWER_TOKEN": CREDENTIALS["viewer token"],
    "KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA__SASL_USERNAME": "worker",
    "KAFKA__SASL_PASSWORD": CREDENTIALS["kafka password"],
    "GOVERNANCE__TOKEN": CREDENTIALS["dashboard token"],
    "POLICY__TOKEN": CREDENTIALS["policy token"],
    "REGISTRY__TOKEN": CREDENTIALS["registry token"],
    "REGISTRY__PROXY": f"http://user:{CREDENTIALS['egress password']}@127.0.0.1:1",
    "WEBHOOKS__EGRESS_PROXY": f"http://user:{CREDENTIALS['egress password']}@127.0.0.1:1",
    "WEBHOOKS__ENCRYPTION_KEYS": json.dumps([CREDENTIALS["encryption key"]]),
    "WEBHOOKS__SIGNING_KEYS": json.dumps([CREDENTIALS["signing key"]]),
}


class TestTheSearch:
    @pytest.mark.parametrize("form", FORM)
    @pytest.mark.parametrize("name", CREDENTIALS)
    def test_finds_each_credential_in_each_form(self, name: str, form: str) -> None:
        written = b"before " + FORM[form](CREDENTIALS[name].encode()) + b" behind"
        assert f"{name} in a place" in found(CREDENTIALS, [("a place", written)])

    @pytest.mark.parametrize("form", FORM)
    @pytest.mark.parametrize("name", PERSONAL)
    def test_finds_personal_data_in_each_form(self, name: str, form: str) -> None:
        written = b"before " + FORM[form](PERSONAL[name].encode()) + b" behind"
        assert found(PERSONAL, [("a place", written)]) == [f"{name} in a place"]

    @pytest.mark.parametrize("name", CREDENTIALS)
    def test_finds_the_mark_of_each_credential(self, name: str) -> None:
        text = CREDENTIALS[name]
        raw = (
            base64.b64decode(text.rpartition("_")[2].rpartition(":")[2])
            if "key" in name or "whsec_" in text
            else text.encode()
        )
        for form in set(FORM) - {"in a URL", "in JSON", "in JSON in JSON"}:
            assert marked(b"x" + FORM[form](raw) + b"x"), form
        assert marked(text.encode())

    @pytest.mark.parametrize("form", FORMS)
    def test_finds_each_form_of_the_mark(self, form: bytes) -> None:
        assert marked(b"x" + form + b"x")

    def test_finds_nothing_where_nothing_is(self) -> None:
        innocent = b"a log line of a worker, with 3f2a and aGVsbG8gd29ybGQ= in it"
        assert not marked(innocent)
        assert found(CREDENTIALS | PERSONAL, [("a place", innocent)]) == []

    def test_finds_what_a_store_has_compressed(self, tmp_path: Path) -> None:
        store = tmp_path / "data" / "store"
        store.parent.mkdir()
        options = rocksdict.Options(raw_mode=True)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        db = rocksdict.Rdict(str(store), options)
        for number in range(200):
            db[b"row-%d" % number] = b"the same in each row, so that it is compressed " * 4
        db[b"row-100"] = CREDENTIALS["policy token"].encode()
        db.flush()
        db.close()
        assert len(rows_of(store)) == 200
        assert any("row-100" in place for place in found(CREDENTIALS, everything_below(tmp_path)))


class TestTheWatch:
    def test_finds_one_in_a_line_its_fields_and_its_exception(self) -> None:
        for message, extra, error in (
            (f"the token {CREDENTIALS['admin token']} is wrong", {}, None),
            ("refused", {"answer": {"you_sent": CREDENTIALS["header credential"]}}, None),
            ("failed", {}, ValueError(CREDENTIALS["kafka password"])),
        ):
            watch = Watch()
            logger = logging.getLogger(f"a.logger.{message}")
            logger.addHandler(watch)
            logger.propagate = False
            logger.error(message, extra=extra, exc_info=error)
            assert len(watch.take()) == 1, message
            assert watch.take() == []

    def test_passes_over_what_our_formatters_redact(self) -> None:
        watch = Watch()
        logger = logging.getLogger("another.logger")
        logger.addHandler(watch)
        logger.setLevel(logging.INFO)
        logger.info("renewed", extra={"token": CREDENTIALS["policy token"]})
        assert (watch.take(), watch.places) == ([], 1)

    def test_finds_one_in_the_log_of_a_worker(self, tmp_path: Path) -> None:
        (tmp_path / "w1").mkdir()
        log = tmp_path / "w1" / "worker.log"
        # Over the end of what is read at once.
        log.write_bytes(b"x" * ((1 << 23) - 25) + f"token={CREDENTIALS['registry token']}".encode())
        watch = Watch()
        watch.look_below(tmp_path)
        assert watch.take() == [str(log)]

    def test_is_not_stopped_by_a_line_that_cannot_be_made(self) -> None:
        watch = Watch()
        watch.handle(logging.makeLogRecord({"msg": "%d of it", "args": (CREDENTIALS["admin token"],)}))
        assert len(watch.take()) == 1

    def test_fails_the_test_that_lets_one_out(self, tmp_path: Path) -> None:
        (tmp_path / "test_leak.py").write_text(
            "import logging\n"
            "def test_leaks():\n"
            f"    logging.getLogger('x').error('the {{}} of it'.format({MARK!r}))\n"
            "def test_is_innocent():\n"
            "    logging.getLogger('x').error('nothing')\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.canary_hooks", "-p", "no:cacheprovider", "."],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 1, done.stdout
        assert "2 passed, 1 error" in done.stdout
        assert "a canary was let out: ['log of x" in done.stdout


class TestTheCommandLine:
    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_config_shows_none(self, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        environment = {f"VAULT_STREAM_{name}": value for name, value in SETTINGS.items()}
        result = CliRunner().invoke(cli, ["config", *options], env=environment)
        assert result.exit_code == 0, result.output
        assert "KAFKA__SASL_PASSWORD" in result.output
        assert not marked(result.output.encode())
        assert found(CREDENTIALS, [("config", result.output.encode())]) == []

    def test_no_repr_of_settings_shows_one(self, tmp_path: Path) -> None:
        settings = load_settings(
            {f"VAULT_STREAM_{name}": value for name, value in SETTINGS.items()}, dotenv=tmp_path / "no"
        )
        assert not marked(f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}".encode())

    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("wrong", ["{} {}", '["{}"', '["{}", 7]', "http://{}:{}@x/?y", "{}\x00"])
    def test_no_error_of_a_setting_shows_one(self, name: str, wrong: str, tmp_path: Path) -> None:
        said = ""
        for secret in (CREDENTIALS["admin token"], webhook_secret()):
            try:
                load_settings({f"VAULT_STREAM_{name}": wrong.format(secret, secret)}, dotenv=tmp_path / "no")
            except SettingsError as error:
                said += f"{error!r} {error} {error.problems}"
        assert not marked(said.encode())
