# The server of finished models, on a CPU. It runs as a user without rights, on a root that may be read-only:
#
#   docker build -t regraft .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#       -e REGRAFT_TOKEN="$(openssl rand -hex 16)" -p 127.0.0.1:8000:8000 -v "$PWD/runs/flowers:/models/flowers:ro" \
#       regraft /models/flowers
#
# It listens at all addresses of the container, so it wants a token and ends with a word about it without one.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/regraft
COPY constraints.txt ./
# The CPU wheels of torch come from their own index: those of PyPI bring gigabytes of CUDA
RUN /opt/regraft/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        -c constraints.txt torch torchvision
COPY pyproject.toml README.md ./
COPY src src
RUN /opt/regraft/bin/pip install --no-cache-dir -c constraints.txt ".[serve]"

FROM python:3.11-slim
RUN groupadd --system --gid 10001 regraft \
    && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin regraft
COPY --from=build /opt/regraft /opt/regraft
ENV PATH=/opt/regraft/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REGRAFT_CACHE=/tmp/regraft
USER 10001:10001
WORKDIR /models
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["regraft", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models"]
