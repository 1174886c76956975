# One image for web hosts (the chat), workers, monitors and operators.
# deploy/image builds it: the wheels are fetched and checked outside, the build needs no network.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
COPY deploy/.wheels /wheels
# Compiled once, here, with hashes instead of times: the same wheels give the same files.
RUN python -m venv /opt/cluster-layer && \
    /opt/cluster-layer/bin/pip install --no-cache-dir --no-compile --no-index \
        --find-links=/wheels "cluster-layer[demo,encryption,metrics]" && \
    /opt/cluster-layer/bin/pip uninstall --yes --quiet pip setuptools && \
    /opt/cluster-layer/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/cluster-layer/lib

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/cluster-layer /opt/cluster-layer
COPY deploy/docker-entrypoint /usr/local/bin/cluster-layer-entrypoint
ENV PATH=/opt/cluster-layer/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DJANGO_SETTINGS_MODULE=cluster_layer.demo.settings \
    HOME=/tmp XDG_STATE_HOME=/tmp \
    CLUSTER_LAYER_STORE_OPTIONS=/tmp/store-options.json
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["cluster-layer-entrypoint"]
CMD ["cluster-layer", "--help"]
