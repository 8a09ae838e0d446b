# One image for the head, the workers and the client. Built from the repository's root:
#
#     docker build --tag transferlib:0.1.0 .                        # CUDA build of torch, every file checked by its hash
#     docker build --tag transferlib:0.1.0-cpu --build-arg TORCH=cpu .     # a third of the size
#
# What of this file has been run, and what has not, is in cluster/README.md.

# The digest is the index of this tag as ten public repositories that build from it have it; there was no registry to
# ask here. To check or renew it: docker buildx imagetools inspect python:3.11.15-slim-trixie
FROM python:3.11.15-slim-trixie@sha256:db3ff2e1800a8581e2c48a27c3995339d47bdf046da21c7627accd3d51053a93 AS base
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

FROM base AS build
# "cuda": the requirements as they are locked, which work without a GPU too. "cpu": the CPU builds of torch and
# torchvision, which lie in an index of their own whose files the lock knows no hashes of; everything else stays checked.
ARG TORCH=cuda
ENV VIRTUAL_ENV=/opt/transferlib \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    UV_PYTHON_DOWNLOADS=never
RUN python -m pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 && uv venv "$VIRTUAL_ENV"
WORKDIR /src
COPY requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/uv \
    case "$TORCH" in \
      cuda) uv pip install --require-hashes -r requirements.txt ;; \
      cpu) awk '/^[a-z]/ { kept = $0 !~ /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ } kept' \
             requirements.txt > /tmp/others.txt \
        && uv pip install --no-deps --require-hashes -r /tmp/others.txt \
        && sed -nE 's/^(torch(vision)?==[0-9.]+).*/\1/p' requirements.txt > /tmp/torch.txt \
        && UV_TORCH_BACKEND=cpu uv pip install --no-deps -r /tmp/torch.txt ;; \
      *) echo "TORCH=$TORCH: use cuda or cpu." >&2; exit 2 ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY jobs jobs
COPY cluster cluster
COPY transferlib transferlib
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps .

FROM base
RUN apt-get update \
 && apt-get install -y --no-install-recommends 'tini=0.19.0-*' \
 && rm -rf /var/lib/apt/lists/*
# Volumes take over the owner of the folder that they are mounted on, the first time.
RUN groupadd --gid 1000 transferlib \
 && useradd --uid 1000 --gid 1000 --create-home transferlib \
 && install -d -o 1000 -g 1000 /runs /cache /metrics /tmp/ray
# Root owns what is installed: a job cannot change it. /etc/profile.d is for login shells, which forget PATH and which
# some versions of KubeRay start Ray through.
COPY --from=build /opt/transferlib /opt/transferlib
# Ray refuses to start without a token: a cluster of this image is never open by mistake.
ENV PATH=/opt/transferlib/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    TORCH_HOME=/cache/torch \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN echo "export PATH=/opt/transferlib/bin:\$PATH" > /etc/profile.d/transferlib.sh
USER 1000:1000
WORKDIR /
# Every Ray node answers here, head or worker, without the token; a client has no node: its compose service has no check.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:52365/api/local_raylet_healthz', timeout=4)"]
ENTRYPOINT ["tini", "--"]
CMD ["submit", "--help"]
