# Serves on AWS Inferentia2 (inf2). Not built or run so far: docs/inferentia.md says what was simulated instead.
#   docker build -f deploy/neuron.Dockerfile -t manga-router-neuron .
#   docker run --device=/dev/neuron0 -p 127.0.0.1:8080:8080 -v router-events:/data -v VERSIONS:/models:ro manga-router-neuron
# VERSIONS is a model repository whose champion has been compiled: python -m model_repo compile-neuron (this image does it
# on any x86 host, without a device).

# The last image that carries torch-neuronx for inf2; mirror it.
FROM public.ecr.aws/neuron/pytorch-inference-neuronx:2.9.0-neuronx-py312-sdk2.31.1-ubuntu24.04 AS neuron
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY service service
COPY model_repo model_repo
# Torch and numpy stay as the image pairs them with the compiler; the CPU engines are not wanted here.
RUN python -c "import tomllib; print(*(name for name in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if name not in {'numpy', 'onnxruntime', 'openvino'}), sep='\n')" > serving.txt \
    && python -m pip install --no-cache-dir --constraint constraints.txt --requirement serving.txt \
    && python -m pip install --no-cache-dir --no-deps .
# The build fails here on a placeholder package or on another release line.
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
