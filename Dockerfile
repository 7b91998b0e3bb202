# Another base, or this one by its digest: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# The lock has every package with its hash, the development tools too. Nothing enters the wheelhouse unchecked, and
# nothing below is installed from elsewhere.
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --require-hashes --wheel-dir /wheelhouse -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY agents agents
COPY tables tables
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --no-index --find-links /wheelhouse hatchling editables \
    && /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && python -m venv /opt/vault-stream \
    && /opt/vault-stream/bin/pip install --no-cache-dir --no-index --find-links /wheelhouse /wheels/*.whl \
    && /opt/vault-stream/bin/pip uninstall --yes --quiet pip
COPY deploy/healthcheck.py /opt/vault-stream/healthcheck.py

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="vault-stream" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin vault \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
COPY --from=build /opt/vault-stream /opt/vault-stream
# Nothing is written but to /data and /tmp: run it with a read-only root and those two mounted.
ENV PATH=/opt/vault-stream/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VAULT_STREAM_DATA_DIR=/data
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8088
# Liveness: it stays healthy while the worker restores, and while Kafka is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "/opt/vault-stream/healthcheck.py"]
# No shell between: SIGTERM reaches the worker, which is process 1, starts no children, and drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["vault-stream"]
CMD ["worker"]
