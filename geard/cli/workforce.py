"""What a worker process has of its config: greenlets, threads, connections. Pure."""

from __future__ import annotations

from geard.config import Config


def per_server(config: Config) -> tuple[int, int]:
    """The greenlets that a worker process of this config has for each job server, and how many of them may be in a
    native thread at once: those that serve a capability with `thread`."""
    own = [one for one in config.capabilities.values() if one.has_own_channel]
    sharing = [one for one in config.capabilities.values() if not one.has_own_channel]
    greenlets = sum(one.greenlets_per_server or config.greenlets_per_server for one in own)
    threads = sum(one.greenlets_per_server or config.greenlets_per_server for one in own if one.thread)
    if sharing:
        greenlets += config.greenlets_per_server
        threads += config.greenlets_per_server if any(one.thread for one in sharing) else 0
    return greenlets, threads


def connections_per_server(config: Config) -> int:
    """The connections that a worker process of this config has to each job server."""
    own = sum(one.has_own_channel for one in config.capabilities.values())
    return own + (own < len(config.capabilities))
