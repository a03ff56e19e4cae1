# The sandbox image. Written for the classic builder (no BuildKit), which is what the engine's
# API offers everywhere; `sandbox-mcp build` is what normally builds it.
# By hand: docker build -t sandbox-mcp:local .
#
# The layers go from slow and rarely changed to cheap and often changed: packages, OpenCode,
# what the sandbox itself brings. The scripts are made executable here because the modes in a
# build context follow whoever made it.

ARG BASE=debian:bookworm-slim
FROM ${BASE}
# For the build alone: a base may have another user.
USER root

# extra.crt is empty, or the CA bundle of a network that intercepts TLS.
COPY image/ca/extra.crt /usr/local/share/ca-certificates/extra.crt
COPY image/packages/ /opt/sandbox/packages/
COPY image/build/packages image/build/tidy /opt/sandbox/build/
# lean, standard or full (image/packages); EXTRA_PACKAGES are further names for apt.
ARG PROFILE=standard
ARG EXTRA_PACKAGES=""
RUN chmod 0755 /opt/sandbox/build/* && /opt/sandbox/build/packages

COPY image/opencode.json /opt/sandbox/opencode.json
COPY image/build/opencode /opt/sandbox/build/opencode
ARG OPENCODE_PACKAGE=""
ARG OPENCODE_VERSION=""
ARG OPENCODE_SHA512=""
# Collect garbage from 256 MB on instead of 32: a tenth off a short run for 45 MB of memory. Set
# here because Bun refuses to start with an option that it does not know, and the build would say.
ENV BUN_JSC_largeHeapSize=268435456
RUN chmod 0755 /opt/sandbox/build/* && /opt/sandbox/build/opencode

# OpenCode's surroundings, the same for sandbox-mcp and for compose:
# - HOME is a tmpfs; its data, state and cache go to the tmpfs /tmp.
# - Its configuration folder is root's and already holds a .gitignore, so that it does not try
#   to write one or to install its plugin package there.
# - An empty catalogue and no fetch: 1 s less start, and no wait for a network that is not there.
# - A workspace's own configuration and skills are not read.
# - No file index (FFF) and no watcher: they read the whole workspace at the start, and inotify
#   watches are counted per user, so that a sandbox could use up the host's.
# The provider itself comes per run, in OPENCODE_CONFIG_CONTENT.
ENV HOME=/home/agent \
    LANG=C.UTF-8 \
    XDG_CONFIG_HOME=/opt/sandbox/config \
    XDG_DATA_HOME=/tmp/.opencode/data \
    XDG_STATE_HOME=/tmp/.opencode/state \
    XDG_CACHE_HOME=/tmp/.opencode/cache \
    OPENCODE_MODELS_PATH=/opt/sandbox/models.json \
    OPENCODE_DISABLE_MODELS_FETCH=1 \
    OPENCODE_DISABLE_AUTOUPDATE=1 \
    OPENCODE_DISABLE_PROJECT_CONFIG=1 \
    OPENCODE_DISABLE_EXTERNAL_SKILLS=1 \
    OPENCODE_DISABLE_LSP_DOWNLOAD=1 \
    OPENCODE_DISABLE_DEFAULT_PLUGINS=1 \
    OPENCODE_DISABLE_FFF=1 \
    OPENCODE_EXPERIMENTAL_DISABLE_FILEWATCHER=1

# The leak check of the address sanitizer is ptrace, which no sandbox has; programs built with it
# would end with an error for that alone.
ENV ASAN_OPTIONS=detect_leaks=0

COPY image/models.json image/init image/compose-entrypoint /opt/sandbox/
COPY image/gitconfig /etc/gitconfig
COPY image/gitignore /opt/sandbox/config/opencode/.gitignore
COPY config/AGENTS.md /opt/sandbox/config/opencode/AGENTS.md
COPY .opencode/commands/ /opt/sandbox/config/opencode/commands/
COPY .opencode/skills/ /opt/sandbox/config/opencode/skills/
RUN chmod -R u=rwX,go=rX /opt/sandbox /etc/gitconfig \
    && chmod 0755 /opt/sandbox/init /opt/sandbox/compose-entrypoint

# Whoever starts a sandbox says as whom; by itself it is nobody's root.
USER 1000:1000
HEALTHCHECK NONE
# Not /workspace, which the builder would make: Podman gives a view there its owner.
WORKDIR /
ENTRYPOINT ["/opt/sandbox/compose-entrypoint"]
