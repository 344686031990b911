#!/usr/bin/env bash
# Install the real backends that `pytest -m backends` runs against.
#
#   scripts/install_backends.sh                       everything
#   scripts/install_backends.sh collector jaeger      only these
#   scripts/install_backends.sh --where               print the folder and stop
#
# Parts: collector (OpenTelemetry Collector), jaeger (v2), phoenix (in a virtual environment of its
# own), chromium (headless, to look at Phoenix) and redis (for Celery; both from the system's packages),
# prometheus (from the system's packages too, unpacked here and not installed: Debian's package would
# start a service).
#
# Everything lands in the folder that BURR_OTEL_BACKENDS names (default: ~/.cache/burr-otel/backends).
# A part that is there in the wanted version is left alone, so running this again costs nothing.
# Needs Go >= 1.21 (it fetches the newer tool chain that a module asks for by itself) and Python >= 3.10.
set -euo pipefail

readonly COLLECTOR_VERSION=v0.159.0 # the manifest names the same version for each component
readonly JAEGER_VERSION=v1.76.0     # the Go module's number for Jaeger 2.13
readonly PHOENIX_VERSION=20.26.1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here manifest="$here/otelcol-manifest.yaml"
readonly cache="${BURR_OTEL_BACKENDS:-$HOME/.cache/burr-otel/backends}"
readonly all_parts=(collector jaeger phoenix chromium redis prometheus)

say() { printf 'backends: %s\n' "$*"; }
die() {
  printf 'backends: error: %s\n' "$*" >&2
  exit 1
}

# --- what the machine offers --------------------------------------------------------------------

as_root() { if [[ $EUID -eq 0 ]]; then "$@"; else sudo -n "$@"; fi; }

apt_install() { # PACKAGE...
  command -v apt-get >/dev/null || die "cannot install $*: this machine has no apt-get; install it by hand."
  say "installing $* from the system's packages"
  if ! as_root apt-get update -qq ||
    ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; then
    die "apt-get could not install $*; install it by hand and run this again."
  fi
}

need_go() {
  command -v go >/dev/null || PATH="$PATH:/usr/local/go/bin"
  command -v go >/dev/null || apt_install golang-go
  local version minor
  version=$(go env GOVERSION)
  minor=${version#go1.}
  minor=${minor%%[!0-9]*}
  [[ ${minor:-0} -ge 21 ]] ||
    die "$(command -v go) is $version; Go 1.21 or newer is needed (older ones cannot fetch the tool chain that Jaeger asks for)."
}

# --- stamps: which version of a part is there ---------------------------------------------------

is_current() { # PART WANTED FILE
  [[ -x $3 && -f $cache/$1.stamp && $(<"$cache/$1.stamp") == "$2" ]]
}

stamp() { # PART WANTED
  printf '%s\n' "$2" >"$cache/$1.stamp"
}

# --- parts --------------------------------------------------------------------------------------

install_collector() {
  local wanted binary="$cache/bin/otelcol"
  wanted="$COLLECTOR_VERSION $(sha256sum "$manifest" | cut -d' ' -f1)"
  if is_current collector "$wanted" "$binary"; then
    say "collector $COLLECTOR_VERSION is there: $binary"
    return
  fi
  need_go
  say "building collector $COLLECTOR_VERSION (minutes, when nothing is cached)"
  GOBIN="$work" go install "go.opentelemetry.io/collector/cmd/builder@$COLLECTOR_VERSION"
  # Strict versioning compares each component with the builder's own release list, and some of the
  # pinned ones (confmap providers) are numbered apart from it.
  (cd "$work" && CGO_ENABLED=0 ./builder --config "$manifest" --skip-strict-versioning) \
    >"$work/builder.log" 2>&1 || {
    cat "$work/builder.log" >&2
    die "the collector did not build; the builder's log is above."
  }
  mv "$work/collector/otelcol" "$binary"
  stamp collector "$wanted"
  say "collector installed: $("$binary" --version)"
}

install_jaeger() {
  local source binary="$cache/bin/jaeger"
  if is_current jaeger "$JAEGER_VERSION" "$binary"; then
    say "jaeger $JAEGER_VERSION is there: $binary"
    return
  fi
  need_go
  say "building jaeger $JAEGER_VERSION (minutes, when nothing is cached)"
  # `go install module@version` refuses a module with replace directives, so build in a copy of it.
  source=$(cd "$work" && go mod download -json "github.com/jaegertracing/jaeger@$JAEGER_VERSION" |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
  [[ -d $source ]] || die "could not download the source of jaeger $JAEGER_VERSION."
  cp -r --no-preserve=mode "$source" "$work/jaeger" # the module cache is read-only
  (cd "$work/jaeger" && CGO_ENABLED=0 go build -buildvcs=false -ldflags='-s -w' -o "$work/jaeger.bin" ./cmd/jaeger)
  mv "$work/jaeger.bin" "$binary"
  stamp jaeger "$JAEGER_VERSION"
  say "jaeger installed: $binary"
}

install_phoenix() {
  local python="${PYTHON:-python3}" venv="$cache/phoenix"
  if is_current phoenix "$PHOENIX_VERSION" "$venv/bin/phoenix"; then
    say "phoenix $PHOENIX_VERSION is there: $venv/bin/phoenix"
    return
  fi
  command -v "$python" >/dev/null || die "$python not found; PYTHON=... names another interpreter."
  say "installing phoenix $PHOENIX_VERSION with $("$python" --version)"
  rm -rf "$venv"
  "$python" -m venv "$venv" || die "$python cannot make virtual environments; on Debian install python3-venv."
  "$venv/bin/pip" install --quiet --disable-pip-version-check "arize-phoenix==$PHOENIX_VERSION"
  stamp phoenix "$PHOENIX_VERSION"
  say "phoenix installed: $venv/bin/phoenix"
}

install_chromium() {
  if command -v chromium >/dev/null; then
    say "chromium is there: $(command -v chromium)"
    return
  fi
  apt_install chromium fonts-dejavu-core
  say "chromium installed: $(command -v chromium)"
}

install_redis() {
  if command -v redis-server >/dev/null; then
    say "redis is there: $(command -v redis-server)"
    return
  fi
  # Debian's package starts a server of its own, which no test uses.
  apt_install redis-server
  say "redis installed: $(command -v redis-server)"
}

install_prometheus() {
  local binary="$cache/bin/prometheus"
  if is_current prometheus debian "$binary"; then
    say "prometheus is there: $binary"
    return
  fi
  command -v apt-get >/dev/null ||
    die "cannot unpack prometheus: this machine has no apt-get; put prometheus and promtool into $cache/bin by hand and 'debian' into $cache/prometheus.stamp."
  say "unpacking prometheus from the system's packages"
  as_root apt-get update -qq
  (cd "$work" && apt-get download -qq prometheus 2>"$work/apt.log") || {
    cat "$work/apt.log" >&2
    die "apt-get could not download prometheus; its message is above."
  }
  dpkg-deb -x "$work"/prometheus_*.deb "$work/prometheus"
  mv "$work/prometheus/usr/bin/promtool" "$work/prometheus/usr/bin/prometheus" "$cache/bin/"
  stamp prometheus debian
  say "prometheus installed: $("$binary" --version | head -1)"
}

# --- main ---------------------------------------------------------------------------------------

main() {
  if [[ ${1:-} == --where ]]; then
    printf '%s\n' "$cache"
    return
  fi
  local part
  for part in "$@"; do
    [[ " ${all_parts[*]} " == *" $part "* ]] || die "unknown part '$part'; parts: ${all_parts[*]}."
  done
  [[ $# -gt 0 ]] || set -- "${all_parts[@]}"

  mkdir -p "$cache/bin"
  exec 9>"$cache/.lock"
  flock -n 9 || {
    say "another installation is running; waiting for it"
    flock 9
  }
  # Below the cache, so that finished files move into place within one file system.
  work=$(mktemp -d "$cache/.work-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  for part in "$@"; do "install_$part"; done
  say "folder: $cache"
}

main "$@"
