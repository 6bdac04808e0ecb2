# syntax=docker/dockerfile:1
# Portcullis as a small image: one binary on a plain Debian, run by a user without rights.
#
# build:  docker build --build-arg PORTCULLIS_COMMIT="$(git rev-parse --short=12 HEAD)" -t portcullis .
# run:    docker run -p 8080:8080 -v "$PWD/gateway.toml:/etc/portcullis/gateway.toml:ro" portcullis
# check:  docker run --rm -v "$PWD/gateway.toml:/etc/portcullis/gateway.toml:ro" portcullis \
#             check --config /etc/portcullis/gateway.toml
#
# The image holds no configuration: what it serves is what you mount. The admin listener stays on
# the container's own loopback unless [admin] says otherwise; the health check runs inside and
# reaches it there. Stopping sends SIGTERM: give `docker stop -t` more time than server.drain_delay
# and server.drain together.

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# gateway.toml is in the binary: its comments are those of the schema.
COPY Cargo.toml Cargo.lock build.rs gateway.toml ./
COPY src ./src
# What `portcullis --version` says; the history is not sent to the builder.
ARG PORTCULLIS_COMMIT=unknown
# Compiled dependencies stay in BuildKit's cache, so that a change of ours rebuilds only our crate.
# Cargo's target list names the integration tests; empty files stand for them.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    mkdir -p tests/it && touch tests/it/main.rs tests/tidy.rs \
    && cargo build --locked --profile dist --bin portcullis \
    && install -D target/dist/portcullis /out/portcullis

FROM debian:bookworm-slim
RUN useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin portcullis \
    && mkdir /etc/portcullis
# The authorities that vouch for issuers' jwks_url; the slim image has none of its own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /usr/share/doc/portcullis/LICENSE
COPY --from=build /out/portcullis /usr/local/bin/portcullis
USER 65532:65532
WORKDIR /etc/portcullis
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/portcullis", "health", "--config", "/etc/portcullis/gateway.toml"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run", "--config", "/etc/portcullis/gateway.toml"]
