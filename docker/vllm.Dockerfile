# The worker's image with vLLM, which answers in place of the embedded inference server. Not yet run on a GPU.
#
# vLLM pins another torch and another transformers, so it has an environment of its own. Build the worker's image first.

ARG VERSION=0.1.0
FROM finetuned-worker:$VERSION
USER root
RUN python3 -m venv /opt/vllm
COPY docker/vllm.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/vllm/bin/pip install --no-deps --require-hashes --requirement vllm.lock
# What it compiles is kept with the rest: it starts sooner the next time.
ENV FINETUNED_INFERENCE_VLLM=/opt/vllm/bin/vllm \
    VLLM_CACHE_ROOT=/var/lib/finetuned/vllm \
    FLASHINFER_WORKSPACE_BASE=/var/lib/finetuned/vllm
USER finetuned
WORKDIR /home/finetuned
