# syntax=docker/dockerfile:1
# Portcullis as a small image: one binary on a plain Debian, run by a user without rights.
#
# build:  docker build --build-arg PORTCULLIS_COMMIT="$(git rev-parse --short=12 HEAD)" -t portcullis .
#           (buildah and podman: with --format docker, or the health check is left out)
# packed: docker build --build-context binary=FOLDER -t portcullis .
#           takes FOLDER/portcullis, which is built already, and compiles nothing
# run:    docker run --read-only -p 8080:8080 -v FOLDER:/etc/portcullis:ro portcullis
# check:  docker run --rm -v FOLDER:/etc/portcullis:ro portcullis check
#           FOLDER has your gateway.toml; that of the repository explains every key, and all of its
#           upstreams are away
#
# The image holds no configuration: what it serves is gateway.toml in the folder that you mount.
# The admin listener stays on the container's own loopback unless [admin] says otherwise; the health
# check runs inside and reaches it there. Nothing is written but /var/lib/portcullis, and that only
# where server.tls.acme.folder names it: the root may be read-only. Stopping sends SIGTERM: give
# `docker stop -t` more time than server.drain_delay and server.drain together.
# docs/deployment.md has all of it, and tests/it/deployment/image.rs runs what stands here.

FROM rust:1.89-slim-bookworm AS build
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

# A folder of this name, given to the builder, stands in for this stage and for the one above.
FROM scratch AS binary
COPY --from=build /out/portcullis /portcullis

# Whom this machine trusts: those who vouch for issuers' jwks_url and for upstreams over TLS.
FROM debian:bookworm-slim AS certificates
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates

# Not pinned further: a build gets Debian's latest security updates.
FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="An edge gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
# The folder for certificates is the user's own, so that a new volume in its place is, too.
RUN groupadd --gid 65532 portcullis \
    && useradd --system --key SYS_UID_MAX=65533 --uid 65532 --gid 65532 --no-create-home \
        --shell /usr/sbin/nologin portcullis \
    && install -d /etc/portcullis \
    && install -d -o 65532 -g 65532 -m 0700 /var/lib/portcullis
COPY --from=certificates /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE /usr/share/doc/portcullis/LICENSE
COPY --from=binary /portcullis /usr/local/bin/portcullis
USER 65532:65532
# Where every command finds gateway.toml: `docker exec CONTAINER portcullis status`.
WORKDIR /etc/portcullis
# The admin port is not listed here: `docker run -P` would publish it.
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/portcullis", "health"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run"]
