"""geard together with other software, each module for those who have it: `geard[sentry]`, `geard[opentelemetry]`."""
