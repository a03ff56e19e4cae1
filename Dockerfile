# The sandbox image. Written for the classic builder (no BuildKit), which is what
# the engine's API offers everywhere; `sandbox-mcp build` is what normally builds it.
# By hand: docker build -t sandbox-mcp:local .
#
# The layers go from slow and rarely changed to cheap and often changed:
# packages, OpenCode, guest scripts.

ARG BASE=debian:bookworm-slim
FROM ${BASE}

# lean, standard or full (image/packages); EXTRA_PACKAGES are names for apt.
ARG PROFILE=standard
ARG EXTRA_PACKAGES=""

# extra.crt is empty, or the CA bundle of a network that intercepts TLS.
COPY image/ca/extra.crt /usr/local/share/ca-certificates/extra.crt
COPY image/packages/ /opt/sandbox/packages/

# Documentation is kept out by dpkg itself. Nothing keeps a setuid or setgid bit:
# a sandbox has no use for one, and no-new-privileges is not the only lock.
# User 1000 has a name for those who start the image by hand; sandbox-mcp mounts its own
# passwd and group. The extra CA must be known before apt speaks to an https mirror, and ca-certificates
# skips a file without certificates only noisily, so an empty one goes.
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale lintian > /etc/dpkg/dpkg.cfg.d/sandbox-no-docs; \
    extra=/usr/local/share/ca-certificates/extra.crt; \
    if [ ! -s "$extra" ]; then rm "$extra"; \
    elif [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then mkdir -p /etc/ssl/certs; cp "$extra" /etc/ssl/certs/ca-certificates.crt; fi; \
    case "$PROFILE" in \
      lean) lists=lean ;; \
      standard) lists='lean standard' ;; \
      full) lists='lean standard full' ;; \
      *) echo "PROFILE is '$PROFILE': it must be lean, standard or full" >&2; exit 1 ;; \
    esac; \
    names=$(cd /opt/sandbox/packages; for list in $lists; do sed 's/#.*//' "$list.txt"; done); \
    apt-get -q update; \
    apt-get -q install -y --no-install-recommends $names $EXTRA_PACKAGES; \
    update-ca-certificates; \
    apt-get clean; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/*.log /tmp/*; \
    find / -xdev -perm /6000 -exec chmod a-s {} +; \
    mkdir -p /workspace /home/agent /run/sandbox /opt/sandbox/config/opencode; \
    chmod 0755 /workspace /home/agent /run/sandbox; \
    grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || echo 'agent:x:1000:1000:agent:/home/agent:/bin/bash' >> /etc/passwd; \
    grep -q '^[^:]*:[^:]*:1000:' /etc/group || echo 'agent:x:1000:' >> /etc/group

# The agent. Without arguments the pin for this machine is read from image/opencode.json.
# npm is the client because it knows where its registry is (mirrors and company
# registries included); where the profile has no npm it comes and goes in this layer.
ARG OPENCODE_PACKAGE=""
ARG OPENCODE_VERSION=""
ARG OPENCODE_SHA512=""
COPY image/opencode.json /opt/sandbox/opencode.json
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    package=$OPENCODE_PACKAGE version=$OPENCODE_VERSION integrity=$OPENCODE_SHA512; \
    if [ -z "$package" ]; then \
      case "$(uname -m)" in \
        x86_64) pin=x64; grep -qw avx2 /proc/cpuinfo || pin=x64-baseline ;; \
        aarch64) pin=arm64 ;; \
        *) echo "no OpenCode is pinned for $(uname -m)" >&2; exit 1 ;; \
      esac; \
      field() { jq -er --arg pin "$pin" ".[\$pin].$1" /opt/sandbox/opencode.json; }; \
      package=$(field package); version=$(field version); integrity=$(field integrity); \
    fi; \
    borrowed=; \
    if ! command -v npm >/dev/null; then \
      borrowed=npm; apt-get -q update; apt-get -q install -y --no-install-recommends npm; \
    fi; \
    mkdir /tmp/npm; cd /tmp/npm; \
    export npm_config_cache=/tmp/npm/cache npm_config_cafile=/etc/ssl/certs/ca-certificates.crt npm_config_update_notifier=false; \
    npm pack --silent "$package@$version"; \
    got=sha512-$(openssl dgst -sha512 -binary ./*.tgz | base64 -w0); \
    if [ "$got" != "$integrity" ]; then \
      printf '%s@%s is not what was pinned:\n  got      %s\n  expected %s\n' "$package" "$version" "$got" "$integrity" >&2; exit 1; \
    fi; \
    tar -xzf ./*.tgz package/bin/opencode; \
    install -o root -g root -m 0755 package/bin/opencode /usr/local/bin/opencode; \
    cd /; \
    if [ -n "$borrowed" ]; then apt-get -q purge -y --auto-remove $borrowed; apt-get clean; fi; \
    rm -rf /tmp/* /root/.npm /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/apt /var/log/*.log; \
    find / -xdev -perm /6000 -exec chmod a-s {} +; \
    /usr/local/bin/opencode --version

# OpenCode's surroundings, the same for the binary and for compose:
# - HOME is a tmpfs; its data, state and cache go to the tmpfs /tmp.
# - Its configuration folder is root's and already holds a .gitignore, so that it
#   does not try to write one or to install its plugin package into the folder.
# - An empty catalogue and no fetch: 1 s less start and no wait for a network that is not there.
# - A workspace's own configuration and skills are not read.
# - No file index (FFF) and no watcher: they read the whole workspace at the start, and
#   inotify watches are counted per user, so a sandbox could use up those of the host.
# The provider itself comes per run in OPENCODE_CONFIG_CONTENT.
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

COPY image/models.json image/init image/compose-entrypoint /opt/sandbox/
COPY image/gitconfig /etc/gitconfig
COPY image/gitignore /opt/sandbox/config/opencode/.gitignore
COPY config/AGENTS.md /opt/sandbox/config/opencode/AGENTS.md
COPY .opencode/commands/ /opt/sandbox/config/opencode/commands/
COPY .opencode/skills/ /opt/sandbox/config/opencode/skills/
# The modes in a build context follow whoever made it; these are what the sandbox relies on.
RUN chmod -R u=rwX,go=rX /opt/sandbox /etc/gitconfig; \
    chmod 0755 /opt/sandbox/init /opt/sandbox/compose-entrypoint

WORKDIR /workspace
ENTRYPOINT ["/opt/sandbox/compose-entrypoint"]
