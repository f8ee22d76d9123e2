# Three targets; BuildKit builds only what the one that is named needs.
#   cpu         the service on a CPU, and what is built when none is named: no torch, no compiler
#   monitoring  the sidecar
#   neuron      the service on AWS Inferentia2
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
# ONNX Runtime reports its use to its maker, unless told not to.
ENV PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
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
    MONITOR_WORK_FOLDER=/state/work \
    MPLCONFIGDIR=/tmp/matplotlib
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/venv/bin/python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['MONITOR_PORT'] + '/health/ready', timeout=2)"]
CMD ["/venv/bin/python", "-m", "monitoring"]

# On AWS Inferentia2 (inf2). Not built or run so far: docs/inferentia.md says what was simulated instead.
#   docker build --target neuron -t manga-router-neuron .
#   docker run --device=/dev/neuron0 -p 127.0.0.1:8080:8080 -v router-events:/data -v VERSIONS:/models:ro manga-router-neuron
# VERSIONS is a model repository whose champion has been compiled: python -m model_repo compile-neuron, which this image
# runs on any x86 host, without a device. It is the last image that carries torch-neuronx for inf2; mirror it.
FROM public.ecr.aws/neuron/pytorch-inference-neuronx:2.9.0-neuronx-py312-sdk2.31.1-ubuntu24.04 AS neuron
WORKDIR /app
# Without an index nothing is installed: the build fails here where the image does not hold these releases.
RUN python -m pip install --no-index --no-deps torch-neuronx==2.9.0.2.15.32035 neuronx-cc==2.26.6360.0
COPY pyproject.toml constraints.txt README.md ./
COPY service service
COPY model_repo model_repo
# Torch and numpy stay as the image pairs them with the compiler; the CPU engines are not wanted here.
RUN python -c "import tomllib; print(*(name for name in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if name not in {'numpy', 'onnxruntime', 'openvino'}), sep='\n')" > serving.txt \
    && python -m pip install --no-cache-dir --constraint constraints.txt --requirement serving.txt \
    && python -m pip install --no-cache-dir --no-deps .
# And here on a placeholder package or another release line, should what was installed since have replaced it.
RUN NEURON_PLATFORM_TARGET_OVERRIDE=inf2 python -c "import importlib, importlib.metadata as m; from model_repo.contract.neuron import probe; print(probe(importlib.import_module, m.version).release)"
RUN useradd --uid 10001 --no-create-home router && mkdir /data && chown router /data
ENV ROUTER_HOST=0.0.0.0 \
    ROUTER_PORT=8080 \
    ROUTER_ENGINE=neuron \
    ROUTER_WORKERS=1 \
    ROUTER_INFERENCE_THREADS=2 \
    ROUTER_MODEL_REPO=/models \
    ROUTER_EVENT_LOG_PATH=/data/events.sqlite \
    TOKENIZERS_PARALLELISM=false \
    PYTHONUNBUFFERED=1
WORKDIR /data
USER router
VOLUME /data
EXPOSE 8080
# The image's own entry point never ends, and its health check asks another port.
ENTRYPOINT []
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['ROUTER_PORT'] + '/health/ready', timeout=2)"]
CMD ["python", "-m", "service"]

# The service, and what is built when no target is named: the last stage.
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
