"""Where the daemon is that a command means: the one module that knows where control sockets are.

Rules, the first that fits:
1. `--socket PATH`: there, and nowhere else.
2. A config, named or found, that names its `control_socket`: there, and nowhere else.
3. A named config (`-c`): the daemon that runs this very file, wherever it is: at its instance's place
   (/run/geard-mail for mail.yaml), at the usual places, then at the other instances'.
4. Else the first of the usual places where a daemon answers; if none does, the only instance that does. Of several
   instances one must be named.

The usual places are those that `geard run` takes: $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, then root's /run/geard, or a
user's /run/user/UID, /run/user/UID/geard and /tmp.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from geard.config.load import Source
from geard.config.model import SOCKET_NAME, runtime_socket
from geard.errors import CannotConnect, ConnectionLost, GeardError, ServerTimeout
from geard.supervisor import answers
from geard.supervisor.answers import Identity
from geard.supervisor.ask import ask

WHO_SECONDS: Final = 2.0
"""A supervisor says who it is at once; one that is stopped or stuck is taken for the one that should be there."""


class Found(NamedTuple):
    """A control socket where a supervisor is. `guessed`: nothing named it, it was the only one."""

    path: str
    identity: Identity | None = None  # None: not asked, or it could not say
    guessed: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What the search depends on."""

    uid: int
    environ: Mapping[str, str]
    glob: Callable[[str], list[str]] = glob.glob

    @classmethod
    def ours(cls) -> Surroundings:
        """Those of this process."""
        return cls(os.geteuid(), os.environ)

    @property
    def runtime(self) -> str:
        """Where systemd makes the runtime directories of our services."""
        return "/run" if self.uid == 0 else f"/run/user/{self.uid}"

    def usual_places(self) -> list[str]:
        """In order, each once."""
        places = [
            runtime_socket(self.environ.get("RUNTIME_DIRECTORY", "")),
            runtime_socket(self.environ.get("XDG_RUNTIME_DIR", "")),
        ]
        if self.uid == 0:
            places.append(f"/run/geard/{SOCKET_NAME}")
        else:
            places += [f"{self.runtime}/{SOCKET_NAME}", f"{self.runtime}/geard/{SOCKET_NAME}"]
            places.append(f"/tmp/geard-{self.uid}.sock")  # noqa: S108 - trust.py sees to it
        return list(dict.fromkeys(filter(None, places)))

    def instance_place(self, config_file: str) -> str:
        """Where `geard@mail` has its socket, for /etc/geard/mail.yaml."""
        stem = os.path.splitext(os.path.basename(config_file))[0]
        return f"{self.runtime}/geard-{stem}/{SOCKET_NAME}"

    def instance_places(self) -> list[str]:
        """Those of all instances that there are."""
        return sorted(self.glob(f"{self.runtime}/geard-*/{SOCKET_NAME}"))


def who(path: str) -> Identity | None:
    """Who answers there; None where somebody is there and cannot say. Raises CannotConnect where nobody is."""
    try:
        return ask(path, answers.WHO, timeout_seconds=WHO_SECONDS).identity
    except ServerTimeout:
        return None
    except CannotConnect:
        raise
    except ConnectionLost as error:
        raise CannotConnect(str(error)) from error


def find(
    socket_path: str | None,
    source: Source | None,
    *,
    named: bool,
    surroundings: Surroundings | None = None,
    ask_who: Callable[[str], Identity | None] = who,
) -> Found:
    """The daemon that is meant. `source` is the config, `named` whether by -c. Raises CannotConnect, which says where
    it was looked for and what runs there."""
    around = surroundings or Surroundings.ours()
    said = socket_path or (source.config.control_socket if source else None)
    if said:
        return Found(said)
    search = _Search(ask_who)
    if source and named:
        places = [around.instance_place(source.file), *around.usual_places(), *around.instance_places()]
        for found in search.through(dict.fromkeys(places)):
            if found.identity is None or _same(found.identity.config, source.file):
                return found
        raise search.failure(f"no daemon runs {source.file}", source)
    for found in search.through(around.usual_places()):
        return found
    instances = list(search.through(around.instance_places()))
    if len(instances) == 1:
        return instances[0]._replace(guessed=True)
    raise search.failure("several daemons run here" if instances else "no daemon answers", source)


class _Search:
    """Asks who is there, and keeps what it saw for the error."""

    def __init__(self, ask_who: Callable[[str], Identity | None]) -> None:
        self._ask_who = ask_who
        self._seen: list[str] = []
        self._somebody = False

    def through(self, places: list[str] | dict[str, None]) -> Iterator[Found]:
        """Each place where a daemon is."""
        for path in places:
            try:
                identity = self._ask_who(path)
            except GeardError as error:
                self._seen.append(str(error).removeprefix(f"no supervisor answers on {path}: ").replace("\n", " "))
                self._seen[-1] = f"{path}: {self._seen[-1].removeprefix(f'{path} ')}"
                continue
            self._somebody = True
            runs = f"pid {identity.pid} runs {identity.config}" if identity else "a daemon that does not say who it is"
            self._seen.append(f"{path}: {runs}")
            yield Found(path, identity)

    def failure(self, message: str, source: Source | None) -> CannotConnect:
        lines = [f"{message}. Looked at:", *(f"  {line}" for line in self._seen)]
        if source and source.problems and not source.places:
            lines += ["The config cannot say where its socket is; --socket PATH can.", *map(str, source.problems)]
        if self._somebody:
            lines.append("Name one with -c FILE or --socket PATH.")
        return CannotConnect("\n".join(lines))


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
