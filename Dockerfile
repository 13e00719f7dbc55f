# The demo in a container; CONTRIBUTING.md says how. It was read with care and not built.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home likeness \
    && install --directory --owner likeness /likeness /likeness/runs

USER likeness
WORKDIR /likeness
COPY --chown=likeness . .
RUN PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=requirements.lock make setup

ENV PATH=/likeness/.venv/bin:$PATH
VOLUME /likeness/runs
CMD ["make", "demo"]
