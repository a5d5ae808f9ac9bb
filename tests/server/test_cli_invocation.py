"""The command line as a process: exit codes, streams, encodings, interruption, bare environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from ondol.cli import group, invocation
from ondol.cli.main import main
from ondol.errors import ModelLoadError, OndolError

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("ENVIRONMENT", "ONDOL_", "CACHE_", "PRELOAD_", "ENABLE_", "FAST_", "LAZY_", "AUTO_", "MODEL_")


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return subprocess.run(
        [sys.executable, "-m", "ondol", *arguments],
        cwd=cwd,
        env={**clean, **(env or {})},
        capture_output=True,
        check=False,
        timeout=60,
    )


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let every command end with ``error``."""

    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(group.cli, "invoke", fail)


def test_version_and_help_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ondol ")
    assert main(["-h"]) == 0
    assert main(["config", "--help"]) == 0
    assert capsys.readouterr().err == ""


def test_no_command_prints_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Commands:" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serv"], ["no such command 'serv'", "did you mean 'serve'?", "ondol --help"]),
        (["xyzzy"], ["no such command 'xyzzy'", "serve", "demo"]),
        (["config", "--jsno"], ["--jsno", "ondol config --help"]),
        (["search"], ["QUERY", "ondol search --help"]),
        (["search", "q", "--limit", "0"], ["--limit", "ondol search --help"]),
        (["stats", "--url", "ftp://x"], ["--url", "ftp://x", "http://127.0.0.1:8000"]),
        (["stats", "--url", "http://[::1"], ["--url"]),
        (["stats", "--timeout", "0"], ["--timeout"]),
        (["serve", "--port", "70000"], ["--port"]),
        (["serve", "--environment", "staging"], ["development", "production", "testing"]),
    ],
)
def test_wrong_usage_is_explained_with_code_2(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert all(word in captured.err for word in words)


def test_expected_errors_are_one_line_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ModelLoadError("the model 'x' could not be loaded: \x1b[2J"))
    assert main(["config"]) == 1
    assert capsys.readouterr().err == "error: the model 'x' could not be loaded: \ufffd[2J\n"


def test_a_failing_disk_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, PermissionError(13, "Permission denied", "/data"))
    assert main(["config"]) == 1
    assert capsys.readouterr().err == "error: Permission denied: /data\n"


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ModuleNotFoundError("No module named 'uvicorn.config'", name="uvicorn.config"))
    assert main(["config"]) == 1
    assert capsys.readouterr().err == "error: the package 'uvicorn' is not installed: pip install 'ondol[server]'\n"


@pytest.mark.parametrize("defect", [RuntimeError("bug"), ModuleNotFoundError("bug", name="ondol.gone")])
def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch, defect: Exception) -> None:
    fail_with(monkeypatch, defect)
    with pytest.raises(type(defect)):
        main(["config"])


def test_interruption_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["config"]) == 130
    assert capsys.readouterr().err == "\n"


def test_errors_are_red_on_a_terminal_unless_colours_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def show() -> str:
        fail_with(monkeypatch, OndolError("no"))
        main(["config"])
        return capsys.readouterr().err

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in show()
    monkeypatch.setenv("NO_COLOR", "1")
    assert show() == "error: no\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert show() == "error: no\n"


def test_without_click_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ondol.cli.invocation")
    monkeypatch.setitem(sys.modules, "click", None)
    assert main(["config"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    pipe_read, pipe_write = os.pipe()
    os.close(pipe_read)
    process = subprocess.run(
        [sys.executable, "-m", "ondol", "config"],
        cwd=tmp_path,
        stdout=pipe_write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(pipe_write)
    assert process.returncode == 141
    assert process.stderr == b""


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"},
    ],
)
def test_korean_goes_in_and_out_in_any_locale(locale: dict[str, str], tmp_path: Path) -> None:
    plain = run("온돌", cwd=tmp_path, env=locale)
    assert plain.returncode == 2
    if "PYTHONIOENCODING" in locale:
        assert b"\\uc628\\ub3cc" in plain.stderr
    else:
        assert "no such command '온돌'" in plain.stderr.decode("utf-8")
    answer = run("config", "--json", cwd=tmp_path, env={**locale, "ONDOL_DATA_DIR": "저장소"})
    assert answer.returncode == 0
    assert json.loads(answer.stdout)["problems"] == []


def test_help_needs_no_command_and_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from ondol.cli.main import main; main(['--help'])\n"
        "heavy = {'asyncio', 'rich', 'numpy', 'uvicorn', 'starlette', 'sqlite3', 'urllib.request', 'ondol.service'}\n"
        "own = {'ondol.cli.' + name for name in ('serve', 'demo', 'embed', 'stats', 'config', 'runtime', 'output')}\n"
        "print(sorted((heavy | own) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert done.stderr == b"[]\n"


def test_serve_adds_no_third_party_to_the_imports_of_uvicorn(tmp_path: Path) -> None:
    code = (
        "import sys, uvicorn; before = set(sys.modules)\n"
        "import ondol.cli.main, ondol.cli.invocation, ondol.cli.serve\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - {'ondol'} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert done.stdout == b"[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_back(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_ONDOL_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ondol se", ["serve", "search"]),
        ("ondol embed --model wo", ["wordllama"]),
        ("ondol serve --environment p", ["production"]),
    ],
)
def test_the_shell_gets_completions(words: str, expected: list[str], tmp_path: Path) -> None:
    env = {"_ONDOL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = run(cwd=tmp_path, env=env)
    assert [line.partition(",")[2] for line in done.stdout.decode().splitlines()] == expected


@pytest.mark.skipif(os.name != "posix", reason="venv paths and signals of POSIX")
@pytest.mark.parametrize("has_ondol", [False, True])
def test_main_py_in_a_bare_environment_says_two_lines(has_ondol: bool, tmp_path: Path) -> None:
    environment = tmp_path / "bare"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    if has_ondol:  # installed, but without the server's packages
        (site,) = (environment / "lib").glob("python*/site-packages")
        (site / "ondol.pth").write_text(str(ROOT / "src"), encoding="utf-8")
    done = subprocess.run(
        [python, "-E", ROOT / "main.py"], cwd=ROOT, capture_output=True, check=False, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    missing, command = done.stderr.splitlines()
    assert ("'click'" if has_ondol else "'ondol'") in missing
    assert "not installed" in missing
    assert command.endswith("make run")


def test_main_py_is_short() -> None:
    assert len((ROOT / "main.py").read_text(encoding="utf-8").splitlines()) <= 10


@pytest.mark.parametrize("argument", ["a", "온돌", "caf\u00e9"])
def test_text_that_was_read_right_stays_so(argument: str) -> None:
    assert invocation._decoded(argument) == argument


def test_arguments_that_are_no_text_stay_as_they_are() -> None:
    assert invocation._decoded("\udcff") == "\udcff"


@pytest.mark.parametrize("arguments", [["embed", "-"], ["similarity", "text", "-"]])
def test_ctrl_c_while_reading_stdin_ends_with_130(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import signal, sys, types\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores the signal
        "def interrupted():\n"
        "    yield b'one text'\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "sys.stdin = types.SimpleNamespace(buffer=interrupted())\n"
        "from ondol.cli.main import main\n"
        f"sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 130
    assert done.stdout == b""
    assert done.stderr == b"\n"
