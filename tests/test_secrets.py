"""Passwords and tokens are neither shown nor kept."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path

import pytest

import evomerge
from evomerge.cli import main as cli
from evomerge.cli.results import print_unenforced
from evomerge.cli.terminal import console, notes, print_json, print_table
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.secrets import filled_in, holds_password, without_secrets
from evomerge.study.storage import open_storage

URL = "postgresql://me:s3cr:t@x@db.example.org:5432/optuna"
TOKEN = "hf_" + "aB3" * 12
EXPERIMENT = (
    "models: {base: zoo:base, experts: {m: zoo:math}}\nsearch_space: global_linear\n"
    "evaluators: [zoo]\nobjectives: [{task: zoo_math, metric: exact_match}]\n"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"got '{URL}': no", "got 'postgresql://me:***@db.example.org:5432/optuna': no"),
        (
            "postgresql://h/d?user=me&password=x1y&ssl=1",
            "postgresql://h/d?user=me&password=***&ssl=1",
        ),
        (f"Authorization: Bearer {TOKEN}.", "Authorization: Bearer ***."),
        (f"https://me:{TOKEN}@huggingface.co/a/b", "https://me:***@huggingface.co/a/b"),
        ("no file x/postgresql:/me:x1y@h/d", "no file x/postgresql:/me:***@h/d"),
        ("http://127.0.0.1:8080/x and a@b", "http://127.0.0.1:8080/x and a@b"),
        ("owner/hf_model@main, hf_hub", "owner/hf_model@main, hf_hub"),
    ],
)
def test_secrets_are_replaced(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_whatever_is_printed_shows_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"of {URL}", ["trial", f"https://me:{TOKEN}@h"], [["1", URL]])
    print_unenforced([f"kept in {URL}"])
    print_json({URL: [URL, {"a": TOKEN}], "number": math.nan})
    notes.print(URL, style="bold")
    console.print(f"[bold]{URL}[/]", soft_wrap=True)
    out, err = capsys.readouterr()
    assert "https://me:***@h" in out
    assert out.count("me:***@db.example.org") == 6
    assert err.count("me:***@db.example.org") == 1
    assert "s3cr" not in out + err
    assert TOKEN not in out + err
    assert json.loads(out[out.index("{") : out.rindex("}") + 1])["number"] is None


def test_nobody_prints_but_through_what_hides_secrets() -> None:
    """Rich's own consoles and ``print`` are used nowhere."""
    texts = {file: file.read_text() for file in Path(evomerge.__file__).parent.rglob("*.py")}
    bare = re.compile(r"(?<![\w.])(Console\(|print\()|typer\.echo")
    found = {file.name for file, text in texts.items() if bare.search(text)}
    assert found <= {"console.py"}


def test_variables_stand_for_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.engine import make_url

    monkeypatch.setenv("DB_PASSWORD", "p@ss/w:rd%")
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("DB_HOST", "db:5432")
    url = make_url(filled_in("postgresql://me:${DB_PASSWORD}@${DB_HOST}/optuna"))
    assert (url.password, url.host, url.port) == ("p@ss/w:rd%", "db", 5432)
    assert filled_in("${DATABASE_URL}") == URL
    with pytest.raises(StudyError, match="expected the environment variable NOT_SET"):
        filled_in("postgresql://me:${NOT_SET}@h/d")


@pytest.mark.parametrize(
    ("url", "held"),
    [
        (URL, True),
        ("postgresql://h/d?password=x", True),
        ("postgresql://me@h/d", False),
        ("postgresql://h:5432/d", False),
        ("postgresql://me:${PW}@h/d", False),
        ("postgresql://h/d?password=${PW}", False),
        ("${DATABASE_URL}", False),
        ("sqlite:///x.db", False),
    ],
)
def test_a_study_keeps_no_password(url: str, held: bool, tmp_path: Path) -> None:
    assert holds_password(url) == held
    file = tmp_path / "e.yaml"
    file.write_text(f"{EXPERIMENT}storage: '{url}'\n")
    if not held:
        assert load_experiment(file, Presets()).storage == url  # as written, variables included
        return
    with pytest.raises(ConfigError, match="storage: expected a URL without its password") as error:
        load_experiment(file, Presets())
    assert "PGPASSWORD" in str(error.value)
    assert "s3cr" not in str(error.value)


def test_a_database_that_does_not_open_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"nosuchdriver{URL.removeprefix('postgresql')}")
    for url in (f"nosuch{URL}", "${DATABASE_URL}"):
        with pytest.raises(StudyError, match="expected a database URL that opens") as error:
            open_storage(tmp_path / "j", url)
        assert "s3cr" not in str(error.value)


def test_a_database_behind_a_variable_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_FILE", str(tmp_path / "s.db"))
    open_storage(tmp_path / "j", "sqlite:///${STUDY_FILE}")
    assert (tmp_path / "s.db").is_file()


@pytest.mark.parametrize("debug", [True, False])
def test_errors_logs_and_tracebacks_show_none(
    debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError(f"{URL} {TOKEN}")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "_debug", debug)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 1
    err = capsys.readouterr().err
    assert ("Traceback" in err) == debug
    assert "RuntimeError: postgresql://me:***@db" in err
    assert "s3cr" not in err
    assert TOKEN not in err
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", (f"{URL} {TOKEN}",), None)
    assert (
        cli._WithoutSecrets().format(record) == "postgresql://me:***@db.example.org:5432/optuna ***"
    )
