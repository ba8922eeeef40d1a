"""The config: YAML to frozen, validated data. Nothing else reads YAML or the environment."""

from geard.config.address import parse_address
from geard.config.model import Capability, Config, JobServer, Logging, Tls

__all__ = ["Capability", "Config", "JobServer", "Logging", "Tls", "parse_address"]
