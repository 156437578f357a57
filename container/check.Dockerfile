# The algorithm's image with the platform's own importer beside it: what ./test.sh looks at the outputs with.
ARG IMAGE
FROM ${IMAGE}
USER root
COPY requirements.lock container/check.py ./
RUN chmod a+r check.py \
    && export PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_BREAK_SYSTEM_PACKAGES=1 \
    && python3 -m pip install --target /tmp/pip pip==26.3 \
    && PYTHONPATH=/tmp/pip:$PYTHONPATH python3 -m pip install --require-hashes -c requirements.lock panimg==0.18.2
USER user
ENTRYPOINT ["python3", "/opt/app/check.py"]
