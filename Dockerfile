# The three images of Larder: --target operator, agent or noop.
#
# Build context: a folder with linux_<arch>/larder-{operator,agent,noop}, static programs as `make binaries` leaves
# them in target/larder/bin. Nothing is compiled or downloaded here, so what ships is what was tested, and there is
# nothing in the images but programs: no shell, no libraries.
#
#     docker build --target operator --build-arg TARGETARCH=amd64 -t larder-operator -f Dockerfile target/larder/bin
#
# `make images` does this for all three.

FROM scratch AS base
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.source="https://github.com/larder-dev/larder" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM base AS operator
ARG TARGETARCH
LABEL org.opencontainers.image.title="larder-operator" \
      org.opencontainers.image.description="Keeps container images present on the nodes of a Kubernetes cluster"
COPY linux_${TARGETARCH}/larder-operator /larder-operator
USER 65532:65532
ENTRYPOINT ["/larder-operator"]

# Root without capabilities: the socket of a container runtime belongs to root.
FROM base AS agent
ARG TARGETARCH
LABEL org.opencontainers.image.title="larder-agent" \
      org.opencontainers.image.description="Works on a node's container runtime for Larder"
COPY linux_${TARGETARCH}/larder-agent /larder-agent
# Nodes with an agent need no other image of ours for pull pods.
COPY linux_${TARGETARCH}/larder-noop /larder-noop
USER 0:0
ENTRYPOINT ["/larder-agent"]

FROM base AS noop
ARG TARGETARCH
LABEL org.opencontainers.image.title="larder-noop" \
      org.opencontainers.image.description="A static program that does nothing, to start in any image"
COPY linux_${TARGETARCH}/larder-noop /larder-noop
USER 65532:65532
ENTRYPOINT ["/larder-noop"]
