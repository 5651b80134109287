# The stack for GPUs: training and evaluation with the transformers engine. vLLM has an environment of its own, because
# it pins other versions of torch: docs/sample.md.
#
#   docker build -t spot .
#   docker run --gpus all -it -v "$PWD":/work -e OPENAI_API_KEY spot run recipe.yaml
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev build-essential \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/spot
ENV PATH=/opt/spot/bin:$PATH PYTHONUNBUFFERED=1

COPY . /src
# deepspeed compiles its kernels when they are first used; nvcc is in the base image.
RUN pip install --no-cache-dir "/src[all,qlora]"

# Files of a run belong to the user, not to root.
RUN useradd --create-home --uid 1001 spot
USER spot
WORKDIR /work
ENTRYPOINT ["spot"]
