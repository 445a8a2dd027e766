import logging
import socket
import subprocess
import sys

import pytest

from llava.records import InputError
from llava.web import program
from llava.web.program import build_parser, check_flags, free_port, is_local, read_logins, run_web, warn_of_others


def parsed(*flags):
    return build_parser().parse_args(flags)


def test_the_flags_are_there_without_gradio_and_torch():
    code = "import sys; from llava.web.program import build_parser; build_parser().format_help(); "
    code += "print(*(name for name in ('gradio', 'torch', 'transformers', 'PIL', 'numpy') if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_every_flag_is_described():
    assert all(action.help for action in build_parser()._actions)


def test_the_page_is_for_this_machine_unless_told_otherwise():
    args = parsed()
    assert (args.host, args.port, args.model, args.server, args.auth) == ("127.0.0.1", 7860, None, None, None)


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "a", "--server", "http://b"],
        ["--auth", "a:b", "--auth-file", "c"],
        ["--port", "65536"],
        ["--max-new-tokens", "1025"],
        ["--max-new-tokens", "0"],
        ["--queue", "0"],
        ["--at-once", "0"],
        ["--share"],
    ],
)
def test_flags_that_argparse_refuses(flags):
    with pytest.raises(SystemExit):
        parsed(*flags)


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--server", "localhost:8000"], "--server localhost:8000: must be an address"),
        (["--server", "file:///etc/passwd"], "must be an address"),
        (["--server", "http://a", "--device", "cpu"], "--device is of a model in this process"),
        (["--server-key-file", "k"], "--server-key-file needs --server"),
        (["--model", " "], "--model is empty"),
    ],
)
def test_flags_that_do_not_fit(flags, said):
    with pytest.raises(InputError, match=said):
        check_flags(parsed(*flags))


def test_logins(tmp_path):
    assert read_logins(None, None) == []
    assert read_logins("ada:a:b", None) == [("ada", "a:b")]
    file = tmp_path / "logins"
    file.write_text("ada:one\n\n bob :two\n", encoding="utf-8")
    assert read_logins(None, str(file)) == [("ada", "one"), ("bob", "two")]
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as some editors begin a file
    assert read_logins(None, str(file)) == [("ada", "one"), ("bob", "two")]


@pytest.mark.parametrize("auth", ["ada", "ada:", ":word", ""])
def test_logins_that_are_none(auth):
    with pytest.raises(InputError, match="--auth: must be USER:PASSWORD"):
        read_logins(auth, None)


def test_files_of_logins_that_are_none(tmp_path):
    with pytest.raises(InputError, match="--auth-file: cannot read .*absent: No such file"):
        read_logins(None, str(tmp_path / "absent"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_logins(None, str(tmp_path / "empty"))


@pytest.mark.parametrize("host, local", [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.8.9.1", True)])
def test_local_hosts(host, local):
    assert is_local(host) is local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_hosts_that_others_reach_are_warned_of(host, caplog):
    assert not is_local(host)
    with caplog.at_level(logging.WARNING):
        warn_of_others(host, asks=False)
    assert "--auth" in caplog.text and "in the clear" in caplog.text and host in caplog.text
    caplog.clear()
    warn_of_others(host, asks=True)
    assert "everybody" not in caplog.text and "in the clear" in caplog.text
    caplog.clear()
    warn_of_others("127.0.0.1", asks=False)
    assert not caplog.text


def test_ports():
    assert free_port("127.0.0.1", 0) > 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--host 127.0.0.1 --port {port}: cannot listen there: .*in use"):
            free_port("127.0.0.1", port)
    with pytest.raises(InputError, match="--host 192.0.2.1"):  # an address that no machine has
        free_port("192.0.2.1", 0)


def test_what_is_wrong_is_told_before_gradio_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "llava.web.serving", raising=False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "as it was")
    with pytest.raises(InputError, match="must be USER:PASSWORD"):
        run_web(parsed("--auth", "nobody"))
    monkeypatch.setattr(program, "free_port", lambda host, port: port)
    with pytest.raises(InputError, match=r"this needs Gradio: pip install '.\[web\]'"):
        run_web(parsed())
