# The broker with a Redis of its own: docker build -t weir . && docker run -p 9092:9092 -v weir:/var/lib/weir weir
FROM rust:1-slim-bookworm AS build
WORKDIR /weir
COPY . .
RUN scripts/packages run
RUN cargo build --release --locked --features archive

FROM debian:bookworm-slim
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/weir weir \
    && install -d -o weir -g weir -m 700 /var/lib/weir
COPY --from=build /weir/target/release/weir /usr/local/bin/weir
USER weir
# Clients outside reach the published port as localhost; elsewhere set WEIR_ADVERTISE to what they connect to.
ENV WEIR_LISTEN=0.0.0.0:9092 \
    WEIR_ADVERTISE=localhost:9092 \
    WEIR_HTTP=0.0.0.0:9464 \
    WEIR_DATA_DIR=/var/lib/weir
EXPOSE 9092 9464
VOLUME /var/lib/weir
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["weir"]
