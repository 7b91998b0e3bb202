FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY app app
COPY agents agents
COPY tables tables
# The lock has the development tools, too: they build the wheel here, and stay here.
RUN python -m venv /build && /build/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
    && /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels . \
    && python -m venv /opt/vault-stream \
    && /build/bin/uv pip compile --quiet --generate-hashes --constraint requirements.lock pyproject.toml -o /runtime.lock \
    && /opt/vault-stream/bin/pip install --no-cache-dir --require-hashes -r /runtime.lock \
    && /opt/vault-stream/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home vault && mkdir /data && chown vault /data
COPY --from=build /opt/vault-stream /opt/vault-stream
ENV PATH=/opt/vault-stream/bin:$PATH VAULT_STREAM_DATA_DIR=/data PYTHONUNBUFFERED=1
USER 10001
VOLUME /data
EXPOSE 8088
ENTRYPOINT ["vault-stream"]
CMD ["worker"]
