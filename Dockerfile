# syntax=docker/dockerfile:1
# Targets: `cloud` (default; fleet serve) and `edge` (fleet edge). Both install from hashed locks and run without root.

ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY requirements/ requirements/
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/bootstrap.txt
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN /build/bin/uv venv /opt/cloud && /build/bin/uv venv /opt/edge \
 && /build/bin/uv pip install --no-cache --compile-bytecode --python /opt/cloud --require-hashes --only-binary :all: -r requirements/cloud.txt -r requirements/dashboards.txt \
 && /build/bin/uv pip install --no-cache --compile-bytecode --python /opt/edge --require-hashes --only-binary :all: -r requirements/edge.txt
COPY . .
RUN /build/bin/hatchling build --target wheel --directory /dist \
 && /build/bin/uv pip install --no-cache --compile-bytecode --python /opt/cloud --no-deps /dist/*.whl \
 && /build/bin/uv pip install --no-cache --compile-bytecode --python /opt/edge --no-deps /dist/*.whl

FROM ${PYTHON} AS base
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin fleet \
 && install -d -o fleet -g fleet /data /backups /boards /run/tokens /run/reader
COPY deploy/entrypoint.sh /usr/local/bin/fleet-entrypoint
COPY deploy/fleet.sh /opt/fleet/bin/fleet
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 FLEET_DATA_DIRECTORY=/data
VOLUME /data
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/fleet-entrypoint"]

FROM base AS edge
COPY --from=build /opt/edge /opt/edge
ENV PATH=/opt/fleet/bin:/opt/edge/bin:$PATH
# No healthcheck: a task that fails ends the agent, and the container's restart policy starts it again.
CMD ["fleet", "edge", "--config", "/etc/fleet/edge.toml"]

FROM base AS cloud
COPY --from=build /opt/cloud /opt/cloud
COPY deploy/healthcheck.py /usr/local/bin/fleet-healthcheck
COPY deploy/prepare_influxdb.sh /usr/local/bin/fleet-prepare-influxdb
ENV PATH=/opt/fleet/bin:/opt/cloud/bin:$PATH FLEET_HTTP_HOST=0.0.0.0 FLEET_HTTP_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "/usr/local/bin/fleet-healthcheck"]
CMD ["fleet", "serve"]
