# The API and, by `python -m migrations`, the database's migrations. No torch.

FROM python:3.11-slim-trixie AS build
RUN python -m venv /opt/finetuned
ENV PATH=/opt/finetuned/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/finetuned/src
COPY docker/api.lock ./
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --require-hashes --requirement api.lock
COPY README.md LICENSE pyproject.toml ./
COPY api api
COPY contract contract
COPY dataset dataset
COPY estimate estimate
COPY finetuned finetuned
COPY inference inference
COPY migrations migrations
COPY runtime runtime
COPY storage storage
COPY store store
COPY trainer trainer
COPY worker worker
# An image runs the service from its source, as a checkout does: the package itself is the client alone. What nothing
# here uses goes: pip, setuptools, and of Arrow the headers, the tests and Flight, 50 MB.
RUN pip install --no-build-isolation --no-deps --editable . && \
    pip check && \
    python -m compileall -q --invalidation-mode=unchecked-hash . && \
    (cd /opt/finetuned/lib/python3.11/site-packages/pyarrow && rm -r include tests *flight*) && \
    pip uninstall --yes setuptools pip

FROM python:3.11-slim-trixie
# The worker's image has the same number: they share the files of FINETUNED_HOME. A new volume gets its owner here.
RUN useradd --uid 10001 --create-home finetuned && install --directory --mode=0700 --owner=finetuned /var/lib/finetuned
COPY --from=build /opt/finetuned /opt/finetuned
# 127.0.0.1 in a container is out of everyone's reach; `ports` decides at which of the machine's addresses it answers.
ENV PATH=/opt/finetuned/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FINETUNED_HOME=/var/lib/finetuned \
    FINETUNED_HOST=0.0.0.0 \
    FINETUNED_PORT=8000
USER finetuned
EXPOSE 8000
# http.client, because urllib would use the proxy of a machine that has one.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --start-interval=1s CMD ["python", "-c", "\
import http.client, sys; \
api = http.client.HTTPConnection('127.0.0.1', 8000, timeout=8); \
api.request('GET', '/health'); \
sys.exit(api.getresponse().status != 200)"]
CMD ["python", "-m", "api"]
ARG VERSION=0.1.0 REVISION=unknown
LABEL org.opencontainers.image.title="finetuned API" \
      org.opencontainers.image.description="The HTTP API of finetuned, and its database migrations." \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.licenses=Apache-2.0
