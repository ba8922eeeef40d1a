"""TLS in front of a job server, as in production: certificates made with openssl, stunnel before a plain gearmand."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from geard.config import JobServer
from geard.config.model import Tls
from tests.support.raw import Peer
from tests.support.servers import HOST, free_port, need, stop_process
from tests.support.waiting import eventually


class Certificates:
    """An authority, and what it has signed: `localhost`, `client`; `expired` and `elsewhere` for other servers. A
    second authority that nobody trusts has signed `stranger`."""

    def __init__(self, directory: Path) -> None:
        need("openssl")
        self.directory = directory
        self._authority("authority")
        self._authority("nobody")
        self._sign("localhost", "authority", "DNS:localhost,IP:127.0.0.1")
        self._sign("elsewhere", "authority", "DNS:elsewhere.example")
        self._sign("expired", "authority", "DNS:localhost", days=-1)
        self._sign("client", "authority", "DNS:client")
        self._sign("stranger", "nobody", "DNS:client")

    def path(self, name: str, kind: str = "pem") -> str:
        return str(self.directory / f"{name}.{kind}")

    def tls(self, client: str | None = "client", ca: str = "authority", **settings: bool | str) -> Tls:
        """What a client of ours is told."""
        return Tls(
            ca=self.path(ca),
            certificate=client and self.path(client),
            key=client and self.path(client, "key"),
            **settings,  # type: ignore[arg-type]
        )

    def _authority(self, name: str) -> None:
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # from 3.13 on Python asks for it
        self._openssl(
            *("req", "-x509", "-subj", f"/CN={name}", "-days", "2"), *usage, *self._new_key(name), "-out", name + ".pem"
        )

    def _sign(self, name: str, authority: str, names: str, days: int = 2) -> None:
        self._openssl("req", "-subj", f"/CN={name}", *self._new_key(name), "-out", name + ".csr")
        (self.directory / "extensions").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        self._openssl(
            *("x509", "-req", "-in", name + ".csr", "-CA", authority + ".pem", "-CAkey", authority + ".key"),
            *("-CAcreateserial", "-days", str(days), "-extfile", "extensions", "-out", name + ".pem"),
        )

    @staticmethod
    def _new_key(name: str) -> tuple[str, ...]:
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", name + ".key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


class Stunnel:
    """stunnel that asks for a client certificate, before the job server at `target`. A context manager."""

    def __init__(self, certificates: Certificates, target: str, certificate: str = "localhost") -> None:
        need("stunnel4")
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="geard-test-")
        self._process: subprocess.Popen[bytes] | None = None
        self._config = f"""
            foreground = yes
            pid =
            syslog = no
            [gearman]
            accept = {HOST}:{self.port}
            connect = {target}
            cert = {certificates.path(certificate)}
            key = {certificates.path(certificate, "key")}
            CAfile = {certificates.path("authority")}
            verifyChain = yes
            """

    def server(self, tls: Tls | None, host: str = "localhost") -> JobServer:
        """How a config names it."""
        return JobServer(host, self.port, tls)

    def _listens(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log
        try:
            Peer.connect(f"{HOST}:{self.port}").close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        return (Path(self._directory.name) / "log").read_text(errors="replace")

    def __enter__(self) -> Stunnel:
        directory = Path(self._directory.name)
        (directory / "config").write_text("\n".join(line.strip() for line in self._config.splitlines()))
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(["stunnel4", str(directory / "config")], stdout=log, stderr=log)
        eventually(self._listens, what="stunnel listening")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process
        stop_process(self._process)
        self._directory.cleanup()
