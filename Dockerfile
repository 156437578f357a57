# The algorithm as Grand Challenge runs it; ./build.sh builds it.
#
# The base brings Python, torch and CUDA 12.6, which the platform's driver needs. It is pinned by tag, not by digest:
# the digest can only be read where Docker Hub can be reached. To pin it: BASE_IMAGE=pytorch/pytorch@sha256:… ./build.sh
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
ARG API_METHOD=exec

FROM ${BASE_IMAGE} AS app
WORKDIR /opt/app
COPY requirements.txt constraints.txt ./
# The base's Python is the system's (PEP 668), in a container the only one there is. Its torch must stay what it was.
RUN version() { python3 -c "import torch; print(torch.__version__)"; } \
    && before="$(version)" \
    && python3 -m pip install --no-cache-dir --break-system-packages --root-user-action=ignore \
        -c constraints.txt -r requirements.txt \
    && test "$before" = "$(version)"
# Uid 1000 is the first user of most computers, whose folders it can then write to. Ubuntu's own is of no use here.
RUN (userdel --remove ubuntu 2>/dev/null || true) \
    && groupadd --gid 1000 user \
    && useradd --uid 1000 --gid user --create-home --no-log-init user
COPY model/ model/
COPY inference.py serve.py ./
COPY resources/ resources/
RUN chmod -R a+rX . && python3 -m compileall -q .
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/cache
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="In silico labelling" \
      org.opencontainers.image.description="Mitochondria, nucleus, tubulin and actin from BF, PC and DIC images; checkpoints trained on simulated cells" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER user

# exec: started once for each case. This is what the platform takes an image without label for.
FROM app AS exec
ENTRYPOINT ["python3", "/opt/app/inference.py"]

# invoke: started once, asked over HTTP for each case.
FROM app AS invoke
LABEL org.grand-challenge.api-method="invoke"
EXPOSE 4743
ENTRYPOINT ["python3", "/opt/app/serve.py"]

FROM ${API_METHOD}
