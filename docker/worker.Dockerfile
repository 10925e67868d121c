# The worker and the trainer that it starts.
#
# A plain Python image will do: torch's wheel brings the CUDA libraries as wheels, at the versions it was built with,
# and the driver comes from the machine. On an nvidia/cuda base the same libraries would be there twice.

# One stage: nothing is compiled here that would leave its tools behind, and a copy from another stage would write the
# gigabytes of torch anew at each change of code.
FROM python:3.11-slim-trixie
# The API's image has the same number: they share the files of FINETUNED_HOME. A new volume gets its owner here.
RUN useradd --uid 10001 --create-home finetuned && install --directory --mode=0700 --owner=finetuned /var/lib/finetuned
RUN python -m venv /opt/finetuned
ENV PATH=/opt/finetuned/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /opt/finetuned/src
# Triton compiles a few lines of C for each GPU; torch_compile wants C++.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ libc6-dev && rm -rf /var/lib/apt/lists/*
COPY requirements.lock docker/gpu.lock ./
RUN pip install --constraint requirements.lock pip setuptools
# The project without its packages is an empty shell: so its dependencies are a layer that a change of code leaves alone.
COPY pyproject.toml LICENSE ./
RUN DS_BUILD_OPS=0 pip install --no-build-isolation --constraint requirements.lock --constraint gpu.lock \
    --group server --group tracing --group trainer --group gpu .
COPY README.md ./
COPY api api
COPY contract contract
COPY dataset dataset
COPY estimate estimate
COPY finetuned finetuned
COPY migrations migrations
COPY runtime runtime
COPY storage storage
COPY store store
COPY trainer trainer
COPY worker worker
# An image runs the service from its source, as a checkout does: the package itself is the client alone.
RUN pip install --no-build-isolation --no-deps --editable . && \
    python -m compileall -q --invalidation-mode=unchecked-hash .

# A model of a hub is downloaded once, and kept with the rest, as compiled kernels are. The driver's parts that torch needs are these two.
ENV PYTHONUNBUFFERED=1 \
    FINETUNED_HOME=/var/lib/finetuned \
    HF_HOME=/var/lib/finetuned/hub \
    TRITON_CACHE_DIR=/var/lib/finetuned/triton \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER finetuned
WORKDIR /home/finetuned
CMD ["python", "-m", "worker"]
