# geard in a container: `docker build -t geard .`, then put your functions in, as in:
#   FROM geard
#   COPY tasks.py /app/
#   COPY geard.yaml /etc/geard/
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY geard geard
COPY etc etc
COPY docs/man docs/man
RUN python -m venv /opt/geard && /opt/geard/bin/pip install --no-cache-dir .

FROM python:3.11-slim
# A fixed number, so that Kubernetes sees that it is not root.
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin geard \
 && install -d -o geard -g geard /app /run/geard /var/lib/geard
COPY --from=build /opt/geard /opt/geard
COPY etc/docker/geard.yaml /etc/geard/geard.yaml
ENV PATH=/opt/geard/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    GEARD_CONFIG=/etc/geard/geard.yaml \
    RUNTIME_DIRECTORY=/run/geard \
    STATE_DIRECTORY=/var/lib/geard
WORKDIR /app
USER 10001:10001
EXPOSE 8733
# geard is PID 1: it hears TERM, drains for at most shutdown_timeout (25 s), and reaps what capabilities leave behind.
# No init is needed before it. Give it longer than that: `docker stop --time 30`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["geard", "health"]
ENTRYPOINT ["geard"]
CMD ["run"]
