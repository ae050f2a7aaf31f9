# Continuo as an image.
#
#   CPU:   docker build -t continuo .
#   CUDA:  docker build -t continuo:cuda --build-arg FEATURES=cuda --build-arg CUDA_COMPUTE_CAP=90 \
#            --build-arg BUILDER=nvidia/cuda:13.0.1-devel-ubuntu24.04 --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .
#          docker run --gpus all ... (needs the NVIDIA container toolkit)
#
#   docker run -p 8765:8765 -v continuo:/data continuo

# Where it is compiled. An image without Rust gets it from rustup.
ARG BUILDER=rust:1.95-bookworm
# Where it runs: a glibc at least as new as the builder's.
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
ARG FEATURES=""
# Which GPU: 80 is A100, 86 RTX 30, 89 RTX 40 and L4, 90 H100 and H200. A build machine has no GPU to ask.
ARG CUDA_COMPUTE_CAP=90
ENV CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP} PATH=/root/.cargo/bin:/usr/local/cargo/bin:/usr/local/cuda/bin:$PATH
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential ca-certificates cmake curl pkg-config \
 && rm -rf /var/lib/apt/lists/* \
 && (command -v cargo || curl -fsSL https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain 1.95)
WORKDIR /build
COPY . .
# The caches stay on the building machine: a changed source compiles again, its dependencies do not.
RUN --mount=type=cache,target=/root/.cargo/registry --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --features "${FEATURES}" \
 && install -D --strip target/release/continuo /out/continuo

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /data --shell /usr/sbin/nologin continuo
COPY --from=build /out/continuo /usr/local/bin/continuo
# The bundled model is part of the program; prompt sets are here to be edited or mounted over.
COPY prompts /usr/local/share/continuo/prompts
USER continuo
WORKDIR /data
# Downloaded models.
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=3s --start-period=60s CMD curl -fsS http://127.0.0.1:8765/readyz || exit 1
# SIGTERM ends every stream with a proper last page.
STOPSIGNAL SIGTERM
ENTRYPOINT ["continuo"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data"]
