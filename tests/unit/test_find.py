"""Where commands look for the daemon, with the answers of each place made up; and whose sockets they talk to."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from geard.config import Config
from geard.config.load import Source
from geard.errors import CannotConnect
from geard.supervisor import trust
from geard.supervisor.answers import Identity
from geard.supervisor.ask import ask
from geard.supervisor.find import Found, Surroundings, find

RUN = "/run/geard/geard.sock"
MAIL = "/run/geard-mail/geard.sock"
WEB = "/run/geard-web/geard.sock"
LOGIN = "/run/user/0/geard.sock"


def config(file: str, control_socket: str | None = None) -> Source:
    return Source(file, Config(control_socket=control_socket), (), {})


def found(
    running: Mapping[str, str | None],
    source: Source | None = None,
    *,
    named: bool = False,
    socket_path: str | None = None,
    uid: int = 0,
    **environ: str,
) -> Found:
    """What is found where these daemons run: path -> config, or None for one that does not say."""

    def who(path: str) -> Identity | None:
        if path not in running:
            raise CannotConnect(f"no supervisor answers on {path}: no such file or directory")
        file = running[path]
        return Identity(7, "1.0", file) if file else None

    def glob(pattern: str) -> list[str]:
        start, end = pattern.split("*")
        return [path for path in running if path.startswith(start) and path.endswith(end)]

    return find(socket_path, source, named=named, surroundings=Surroundings(uid, environ, glob), ask_who=who)


SERVICE = {RUN: "/etc/geard/geard.yaml"}
ALL = {**SERVICE, MAIL: "/etc/geard/mail.yaml", WEB: "/etc/geard/web.yaml"}


@pytest.mark.parametrize(
    ("what", "path"),
    [
        pytest.param(lambda: found(SERVICE), RUN, id="root finds the service"),
        pytest.param(lambda: found(SERVICE, XDG_RUNTIME_DIR="/run/user/0"), RUN, id="in a login session too"),
        pytest.param(lambda: found({**SERVICE, LOGIN: "a"}, XDG_RUNTIME_DIR="/run/user/0"), LOGIN, id="its own first"),
        pytest.param(lambda: found(ALL), RUN, id="the service before instances"),
        pytest.param(lambda: found({MAIL: "m"}), MAIL, id="the only instance"),
        pytest.param(lambda: found({}, socket_path="/x"), "/x", id="a named socket, unasked"),
        pytest.param(lambda: found(ALL, config("a.yaml", "/srv/x")), "/srv/x", id="a config that names its socket"),
        pytest.param(lambda: found(ALL, config("/etc/geard/mail.yaml"), named=True), MAIL, id="a named instance"),
        pytest.param(lambda: found(ALL, config("/etc/geard/geard.yaml"), named=True), RUN, id="the service so"),
        pytest.param(lambda: found({WEB: "/srv/my.yaml"}, config("/srv/my.yaml"), named=True), WEB, id="any place"),
        pytest.param(lambda: found({RUN: None}), RUN, id="one that is stuck"),
        pytest.param(
            lambda: found({"/run/user/5/geard.sock": "a"}, uid=5), "/run/user/5/geard.sock", id="no session"
        ),
        pytest.param(
            lambda: found({"/tmp/geard-5.sock": "a"}, uid=5, XDG_RUNTIME_DIR="/run/user/5"),
            "/tmp/geard-5.sock",
            id="one that was started without a session",
        ),
        pytest.param(
            lambda: found({"/run/user/5/geard-mail/geard.sock": "m"}, uid=5),
            "/run/user/5/geard-mail/geard.sock",
            id="a user's own service",
        ),
    ],
)  # fmt: skip
def test_the_daemon_is_found(what: Callable[[], Found], path: str) -> None:
    assert what().path == path


def test_a_daemon_that_runs_another_config_is_not_taken_for_the_one_named() -> None:
    with pytest.raises(CannotConnect) as caught:
        found(SERVICE, config("/etc/geard/mail.yaml"), named=True, XDG_RUNTIME_DIR="/run/user/0")
    assert str(caught.value) == (
        "no daemon runs /etc/geard/mail.yaml. Looked at:\n"
        f"  {MAIL}: no such file or directory\n"
        f"  {LOGIN}: no such file or directory\n"
        f"  {RUN}: pid 7 runs /etc/geard/geard.yaml\n"
        "Name one with -c FILE or --socket PATH."
    )


def test_of_several_instances_one_must_be_named() -> None:
    with pytest.raises(CannotConnect) as caught:
        found({MAIL: "/etc/geard/mail.yaml", WEB: "/etc/geard/web.yaml"})
    text = str(caught.value)
    assert text.startswith("several daemons run here. Looked at:\n")
    assert f"{MAIL}: pid 7 runs /etc/geard/mail.yaml" in text
    assert f"{WEB}: pid 7 runs /etc/geard/web.yaml" in text


def test_what_is_guessed_is_said_to_be() -> None:
    assert found({MAIL: "m"}).guessed
    assert not found(SERVICE).guessed


# --- whose socket -------------------------------------------------------------------------------------------------


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to others")


def test_our_own_socket_is_trusted(tmp_path: Path) -> None:
    with listening(tmp_path / "s"), socket.socket(socket.AF_UNIX) as client:
        owners = trust.owners_of(str(tmp_path / "s"), os.geteuid())
        client.connect(str(tmp_path / "s"))
        trust.check_listener(client, "s", owners)
        with pytest.raises(trust.Untrusted, match="listens on s"):
            trust.check_listener(client, "s", frozenset({12345}))


def test_a_socket_where_anybody_may_write_is_not(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        tmp_path.chmod(0o777)
        with pytest.raises(trust.Untrusted, match="anybody may write to"):
            ask(str(tmp_path / "s"), "ps")
        tmp_path.chmod(0o1777)
        trust.owners_of(str(tmp_path / "s"), os.geteuid())
        (tmp_path / "link").symlink_to(tmp_path / "s")
        trust.owners_of(str(tmp_path / "link"), os.geteuid())
        tmp_path.chmod(0o700)


def test_what_is_no_socket_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(trust.Untrusted, match="is not a socket"):
        ask(str(tmp_path / "file"), "ps")


@as_root
def test_the_socket_of_another_user_is_not_even_through_a_link(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with listening(tmp_path / "s"), listening(tmp_path / "ours"):
        os.chown(tmp_path / "s", 12345, 12345)
        with pytest.raises(trust.Untrusted, match="belongs to user 12345"):
            ask(str(tmp_path / "s"), "ps")
        (tmp_path / "link").symlink_to(tmp_path / "s")
        with pytest.raises(trust.Untrusted, match="belongs to user 12345"):
            ask(str(tmp_path / "link"), "ps")
        (tmp_path / "their link").symlink_to(tmp_path / "ours")
        os.chown(tmp_path / "their link", 12345, 12345, follow_symlinks=False)
        with pytest.raises(trust.Untrusted, match="belongs to user 12345"):
            ask(str(tmp_path / "their link"), "ps")


@as_root
def test_root_talks_to_whom_root_gave_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    directory = tmp_path / "geard"
    directory.mkdir()
    with listening(directory / "s"):
        for name in (directory, directory / "s"):
            os.chown(name, 12345, 12345)
        with pytest.raises(trust.Untrusted):  # /tmp is on the way: anybody may have made it
            trust.owners_of(str(directory / "s"), 0)
        monkeypatch.setattr(trust, "_given_by_root", lambda directory: True)
        assert 12345 in trust.owners_of(str(directory / "s"), 0)
        with pytest.raises(trust.Untrusted):
            trust.owners_of(str(directory / "s"), 4711)


def test_without_a_descriptor_left_a_supervisor_cannot_be_asked(tmp_path: Path) -> None:
    with without_descriptors(), pytest.raises(CannotConnect, match=r"cannot ask the supervisor on .*: too many open"):
        ask(str(tmp_path / "s"), "ps")


@contextmanager
def without_descriptors() -> Iterator[None]:
    with ExitStack() as stack:
        most = stack.enter_context(Path("/dev/null").open("rb")).fileno() + 1
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        yield
