# One image for every process: `docker run packstream api`, `… relay`, `… worker`, `… migrate`, `… topics`.
# Target `stack` adds what docker-compose.yml runs of the emulated parts; the default target is the last.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY ops/image-requirements.lock /tmp/image-requirements.lock
RUN /opt/venv/bin/pip install --require-hashes --no-deps -r /tmp/image-requirements.lock

FROM builder AS stack-builder
COPY requirements.lock /tmp/requirements.lock
RUN /opt/venv/bin/pip install --require-hashes --no-deps -r /tmp/requirements.lock

FROM python:${PYTHON}-slim AS base
# What the worker's media agent opens videos and scans with.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ffmpeg tesseract-ocr \
 && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 packstream \
 && useradd --uid 10001 --gid packstream --no-create-home --shell /usr/sbin/nologin packstream \
 && install -d -o packstream -g packstream /var/lib/packstream
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    DATA_DIR=/var/lib/packstream \
    LOG_FORMAT=json
WORKDIR /app
COPY api api
COPY models models
COPY schemas schemas
COPY streams streams
COPY agents agents
COPY migrations migrations
COPY ops ops
USER packstream
VOLUME /var/lib/packstream
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "ops.cli"]
CMD ["api"]

FROM base AS stack
COPY --from=stack-builder /opt/venv /opt/venv
ENTRYPOINT ["python"]
CMD ["-m", "ops.cli", "--help"]

# Kafka Connect with Debezium, from the jars that `make test-debezium` uses.
FROM maven:3-eclipse-temurin-21 AS connect-builder
COPY ops/stack/connect-pom.xml ops/stack/debezium-pom.xml ops/stack/connect-jars.sha256 ops/stack/debezium-jars.sha256 /poms/
RUN mvn -q -B -f /poms/connect-pom.xml dependency:copy-dependencies -DoutputDirectory=/connect/worker \
 && mvn -q -B -f /poms/debezium-pom.xml dependency:copy-dependencies -DoutputDirectory=/connect/plugins/debezium \
 && cd /connect/worker && sha256sum --check --quiet /poms/connect-jars.sha256 \
 && cd /connect/plugins/debezium && sha256sum --check --quiet /poms/debezium-jars.sha256

FROM eclipse-temurin:21-jre AS connect
RUN groupadd --gid 10001 packstream && useradd --uid 10001 --gid packstream --no-create-home packstream
COPY --from=connect-builder /connect /opt/connect
COPY ops/compose/connect.properties /opt/connect/connect.properties
USER packstream
EXPOSE 8083
ENTRYPOINT ["java", "-Xmx512m", "-cp", "/opt/connect/worker/*", "org.apache.kafka.connect.cli.ConnectDistributed"]
CMD ["/opt/connect/connect.properties"]

FROM base AS packstream
COPY --from=builder /opt/venv /opt/venv
EXPOSE 8080
