# Serves the version in model_repo/versions on a CPU: no torch, no compiler, not root.
#   docker build -t manga-router . && docker run -p 127.0.0.1:8080:8080 -v router-events:/data manga-router

FROM python:3.11-slim AS build
WORKDIR /app
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md ./
COPY service service
COPY model_repo model_repo
RUN /venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt .

FROM build AS build-monitoring
COPY monitoring monitoring
RUN /venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt '.[monitoring]'

FROM python:3.11-slim AS runtime
RUN useradd --uid 10001 --no-create-home router && mkdir /data /state /models && chown router /data /state /models
COPY model_repo/versions /app/model_repo/versions
ENV PYTHONUNBUFFERED=1
WORKDIR /data
USER router
VOLUME /data

# The sidecar: reads the log of the service, publishes into the model repository, which both of them mount (deploy/compose.yml).
#   docker build --target monitoring -t manga-router-monitoring .
FROM runtime AS monitoring
COPY --from=build-monitoring /venv /venv
ENV MONITOR_HOST=0.0.0.0 \
    MONITOR_PORT=8081 \
    MONITOR_MODEL_REPO=/models \
    MONITOR_EVENT_LOG_PATH=/data/events.sqlite \
    MONITOR_STATE_PATH=/state/monitor.sqlite \
    MONITOR_WORK_FOLDER=/state/work
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/venv/bin/python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['MONITOR_PORT'] + '/health/ready', timeout=2)"]
CMD ["/venv/bin/python", "-m", "monitoring"]

# The service, and what is built when no target is named.
FROM runtime AS cpu
COPY --from=build /venv /venv
ENV ROUTER_HOST=0.0.0.0 \
    ROUTER_PORT=8080 \
    ROUTER_MODEL_REPO=/app/model_repo/versions \
    ROUTER_EVENT_LOG_PATH=/data/events.sqlite
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/venv/bin/python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['ROUTER_PORT'] + '/health/ready', timeout=2)"]
CMD ["/venv/bin/python", "-m", "service"]
