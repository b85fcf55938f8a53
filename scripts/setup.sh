# Sourced by ./perun and scripts/with-setup (POSIX sh; $root is the repository). Installs the locked packages when they are absent or the lock file changed.

# Prints the Node 24 or newer to use; empty when there is none yet.
perun_node() {
  # By its package's folder: npm 9 makes no link of this name in .bin.
  for candidate in "$root"/node_modules/node-linux-*/bin/node node; do
    if "$candidate" -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 24 ? 0 : 1)' >/dev/null 2>&1; then
      command -v "$candidate"
      return 0
    fi
  done
}

# Settings for speed only, see docs/performance.md. Compiled code is kept beside the packages: who can write there can change the program anyway.
perun_node_settings() {
  export NODE_COMPILE_CACHE="$root/node_modules/.cache/node"
  # glibc: copy without `rep movsb`, which is several times slower on AMD Zen 3 at some distances; keep freed memory.
  export GLIBC_TUNABLES="${GLIBC_TUNABLES-glibc.cpu.x86_rep_movsb_threshold=100000000:glibc.malloc.trim_threshold=134217728:glibc.malloc.top_pad=4194304}"
  # What fetches public things (collateral, time stamps, cosignatures) goes by the environment's proxy; a machine's own addresses never do, there and in src/protocol/proxy-tunnel.ts.
  if [ -n "${https_proxy:-${HTTPS_PROXY:-${http_proxy:-${HTTP_PROXY:-}}}}" ]; then
    NO_PROXY="${no_proxy:-${NO_PROXY:-}}"
    NO_PROXY="${NO_PROXY:+$NO_PROXY,}localhost,127.0.0.1,::1"
    no_proxy=$NO_PROXY
    NODE_USE_ENV_PROXY=1
    export NO_PROXY no_proxy NODE_USE_ENV_PROXY
  fi
}

# perun_setup_packages production|development: what the program needs, or that and what its tests need.
perun_setup_packages() {
  wanted=$(cksum <"$root/package-lock.json")
  have=$(cat "$root/node_modules/.perun-setup" 2>/dev/null || true)
  case $have in
  "development $wanted") return 0 ;;
  "production $wanted") [ "$1" = production ] && return 0 ;;
  esac
  if ! command -v npm >/dev/null 2>&1; then
    echo "perun: npm is missing; install Node 18 or newer with npm (Debian, Ubuntu: apt-get install nodejs npm), then try again" >&2
    exit 40
  fi
  echo "perun: installing the packages of package-lock.json into node_modules (Node 24 included, no install scripts) ..." >&2
  omit=
  [ "$1" = production ] && omit=--omit=dev
  log=$(mktemp)
  if ! (cd "$root" && npm ci $omit --ignore-scripts --no-audit --no-fund >"$log" 2>&1); then
    tail -n 5 "$log" >&2
    rm -f "$log"
    echo "perun: the packages could not be installed; is the npm registry within reach? Nothing was changed but node_modules" >&2
    exit 40
  fi
  rm -f "$log"
  if [ -z "$(perun_node)" ]; then
    echo "perun: no Node 24 for this machine ($(uname -sm)); install Node 24 or newer and try again" >&2
    exit 20
  fi
  echo "$1 $wanted" >"$root/node_modules/.perun-setup"
}
