# The algorithm's image with the platform's own importer beside it: what ./test.sh looks at the outputs with.
ARG IMAGE
FROM ${IMAGE}
USER root
RUN python3 -m pip install --no-cache-dir --break-system-packages --root-user-action=ignore -c constraints.txt \
    panimg==0.18.2
COPY container/check.py /opt/app/
USER user
ENTRYPOINT ["python3", "/opt/app/check.py"]
