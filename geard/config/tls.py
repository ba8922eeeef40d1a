"""Whether OpenSSL can use the files of a TLS config. Found out here, at the start, rather than at each connect."""

from __future__ import annotations

from geard.config.model import Tls
from geard.config.problems import At


def check_tls_files(tls: Tls, at: At) -> None:
    """Report files that hold no certificate or key, and a key that is another certificate's or has a password."""
    import ssl  # only where TLS is used: it is large, and a process that is yet to be patched must not load it

    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ValueError) as error:
        ca = at.key("ca")
        ca.report(f"{ca.shown(tls.ca or '')}: {_reason(error)}", expected="a PEM file with the authority's certificate")
        return
    if tls.certificate is None:
        return
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")  # never ask at the terminal
    except (OSError, ValueError) as error:
        named = {"certificate": tls.certificate, "key": tls.key}
        files = " and ".join(at.key(name).shown(path) for name, path in named.items() if path)
        at.key("certificate").report(
            f"{files}: {_reason(error)}", expected="PEM files with a certificate and its key, without a password"
        )


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return f"OpenSSL says {str(reason).lower().replace('_', ' ')}"
