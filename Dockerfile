# One file, two images: `web` carries no torch; `worker` does.
FROM node:22-slim AS javascript
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts

FROM python:3.12-slim AS source
WORKDIR /build
COPY --from=javascript /build/node_modules node_modules
COPY pyproject.toml constraints.txt README.md package.json package-lock.json ./
COPY app app
COPY worker worker
COPY demo demo
COPY migrations migrations
COPY templates templates
COPY static static
RUN python app/web/vendor.py --copy-only \
 && pip install --no-cache-dir --constraint constraints.txt hatchling \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.12-slim AS web
RUN useradd --create-home --uid 1000 prefloop && mkdir /data && chown prefloop /data
COPY constraints.txt /tmp/
COPY --from=source /wheels /wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt /wheels/*.whl
USER prefloop
WORKDIR /data
ENV PREFLOOP_HOME=/data
EXPOSE 8000
CMD ["prefloop", "serve", "--host", "0.0.0.0"]

# TORCH_INDEX: empty for the build with CUDA; for the small one the index that PyTorch's install page names for CPU.
FROM web AS worker
USER root
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --constraint /tmp/constraints.txt --index-url "$TORCH_INDEX" torch; fi \
 && pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /wheels/*.whl)[worker]"
USER prefloop
CMD ["prefloop", "worker", "--queue", "all"]
