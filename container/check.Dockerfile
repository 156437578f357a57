# The algorithm's image with the platform's own importer beside it: what ./test.sh looks at the outputs with.
ARG IMAGE
FROM ${IMAGE}
USER root
COPY requirements.lock requirements-dev.lock container/check.py ./
# The releases that are locked, without their hashes: pip wants those of all or none, and here they are of all but torch.
RUN chmod a+r check.py \
    && sed -n 's/^\([a-z0-9].*\) \\$/\1/p' requirements.lock requirements-dev.lock >constraints.txt \
    && python3 -m pip install --no-cache-dir --break-system-packages --root-user-action=ignore -c constraints.txt panimg
USER user
ENTRYPOINT ["python3", "/opt/app/check.py"]
