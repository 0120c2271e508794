# syntax=docker/dockerfile:1
# One image for the operator (`run`) and the node agent (`agent`).
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/vrampack
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY charts charts
COPY examples examples
COPY operator operator
RUN --mount=type=cache,target=/var/cache/pip PIP_CACHE_DIR=/var/cache/pip /opt/vrampack/bin/pip install '.[agent]'

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="vrampack" \
      org.opencontainers.image.description="Packs language models onto fractions of GPUs, byte by byte" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/vrampack /opt/vrampack
# A read-only root is enough: bytecode was compiled above, and what is cached goes to /tmp.
ENV PATH=/opt/vrampack/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["vrampack"]
CMD ["--help"]
