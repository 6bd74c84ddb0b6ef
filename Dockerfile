# No architecture is named: each platform of `docker buildx build --platform linux/amd64,linux/arm64 .` builds for itself.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked --bin marina-distribution

# The same Debian, for the same C library. It has setpriv, which the entry point steps down with.
FROM docker.io/library/debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/target/release/marina-distribution /usr/local/bin/
COPY --chmod=755 deploy/entrypoint.sh /usr/local/bin/entrypoint
RUN install -d -o 65532 -g 65532 /data
# Flags and variables given to the container are stronger.
ENV MARINA_LISTEN=0.0.0.0:5000 MARINA_STORE=/data
VOLUME /data
EXPOSE 5000
# Whether it runs, and not whether its store answers: Swarm and podman restart what is not healthy, which helps no store.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["marina-distribution", "health", "--live"]
ENTRYPOINT ["entrypoint"]
CMD ["serve"]
