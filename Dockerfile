# The algorithm as Grand Challenge runs it; ./build.sh builds it.
#
# The base brings Python, torch and CUDA 12.6, which the platform's driver needs. It is pinned by tag, not by digest:
# the digest can only be read where Docker Hub can be reached. To pin it: BASE_IMAGE=pytorch/pytorch@sha256:… ./build.sh
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
ARG API_METHOD=exec

# All that is added to the base, in one folder: permissions, times and bytecode do not depend on the clone or the day.
FROM ${BASE_IMAGE} AS files
WORKDIR /image/opt/app
COPY requirements.txt requirements.lock /tmp/
# From 26.1 on, pip takes hashes from a constraints file. torch is in no lock: the base's torch stays what it is.
RUN python3 -c "from importlib.metadata import version; v = version('torch'); \
        v.startswith('2.13.0') or exit(f'found torch {v} in the base image, expected 2.13.0')" \
    && export PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    && python3 -m pip install --target /tmp/pip pip==26.3 \
    && PYTHONPATH=/tmp/pip python3 -m pip install --no-compile --no-deps --require-hashes \
        --target site-packages -c /tmp/requirements.lock -r /tmp/requirements.txt
COPY LICENSE inference.py serve.py ./
COPY model/ model/
COPY resources/ resources/
RUN PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode unchecked-hash . \
    && chmod -R u=rwX,go=rX . \
    && find /image -exec touch --no-dereference --date=@0 {} +

FROM ${BASE_IMAGE} AS app
# Uid 1000 is the first user of most computers, whose folders it can then write to. Ubuntu's own is of no use here.
# A named volume or a tmpfs takes its permissions from /output; whoever runs the container may write there.
# /etc/mtab is the engine's, which may make it in the same second.
RUN begun=$(date +%s) && export SOURCE_DATE_EPOCH=0 \
    && (userdel --remove ubuntu 2>/dev/null || true) \
    && groupadd --gid 1000 user \
    && useradd --uid 1000 --gid user --create-home --no-log-init user \
    && install --directory --mode=777 --owner=user --group=user /output \
    && find /etc /home /output -newermt "@$begun" -writable ! -name mtab -exec touch --no-dereference --date=@0 {} +
COPY --from=files /image /
WORKDIR /opt/app
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/app/site-packages \
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
