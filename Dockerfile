# The stack for GPUs: training and evaluation with the transformers engine. vLLM has an environment of its own, because
# it pins other versions of torch: docs/sample.md.
#
#   docker build -t spot .
#   docker run --gpus all -it --user "$(id -u):$(id -g)" -v "$PWD":/work -e OPENAI_API_KEY spot run recipe.yaml
#
# The CUDA of the image must be that of torch's wheel (13.0 for torch 2.13), because DeepSpeed compiles with its nvcc.
ARG BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04
FROM $BASE

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev build-essential \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/spot
ENV PATH=/opt/spot/bin:$PATH PYTHONUNBUFFERED=1

COPY pyproject.toml README.md LICENSE /src/
COPY tests/constraints.txt /src/tests/
COPY src /src/src
# --user can be any id, which then has no name and no home: caches of models and compiled kernels need both.
RUN pip install --no-cache-dir "/src[all,qlora]" -c /src/tests/constraints.txt \
    && mkdir -m 1777 /home/spot /work
ENV HOME=/home/spot USER=spot
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["spot"]
