# The worker and the trainer that it starts.
#
# A plain Python image will do: torch's wheel brings the CUDA libraries as wheels, at the versions it was built with,
# and the driver comes from the machine. On an nvidia/cuda base the same libraries would be there twice.

# One stage: a copy from another one would write the gigabytes of torch anew at each change of code.
FROM python:3.11-slim-trixie
# The API's image has the same number: they share the files of FINETUNED_HOME. A new volume gets its owner here.
RUN useradd --uid 10001 --create-home finetuned && install --directory --mode=0700 --owner=finetuned /var/lib/finetuned
RUN python -m venv /opt/finetuned
ENV PATH=/opt/finetuned/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /opt/finetuned/src
# Triton compiles a few lines of C for each GPU; torch_compile wants C++.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libc6-dev && rm -rf /var/lib/apt/lists/*
# "cuda" or "cpu". CUDA's libraries are most of the image: a layer of their own, which stays when another package changes.
# A build of torch that PyPI has not comes from TORCH_INDEX.
ARG TORCH=cuda TORCH_INDEX=
COPY docker/torch-$TORCH.lock ./torch.lock
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --require-hashes ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement torch.lock
COPY docker/worker.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    DS_BUILD_OPS=0 pip install --no-deps --no-build-isolation --require-hashes --requirement worker.lock
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
# An image runs the service from its source, as a checkout does: the package itself is the client alone.
RUN pip install --no-build-isolation --no-deps --editable . && \
    pip check && \
    python -m compileall -q --invalidation-mode=unchecked-hash .

# A model of a hub is downloaded once, and kept with the rest, as compiled kernels are. The driver's parts that torch
# needs are these two.
ENV PYTHONUNBUFFERED=1 \
    FINETUNED_HOME=/var/lib/finetuned \
    HF_HOME=/var/lib/finetuned/hub \
    TORCHINDUCTOR_CACHE_DIR=/var/lib/finetuned/inductor \
    TRITON_CACHE_DIR=/var/lib/finetuned/triton \
    MPLCONFIGDIR=/tmp/matplotlib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER finetuned
WORKDIR /home/finetuned
# Whether this worker reported to the database a moment ago, and can reach the broker.
HEALTHCHECK --interval=30s --timeout=30s --start-period=2m --start-interval=5s CMD ["python", "-m", "worker.health"]
CMD ["python", "-m", "worker"]
ARG VERSION=0.1.0 REVISION=unknown
LABEL org.opencontainers.image.title="finetuned worker" \
      org.opencontainers.image.description="The worker of finetuned, and the trainer that it starts." \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.licenses=Apache-2.0
