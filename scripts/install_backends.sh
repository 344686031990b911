#!/usr/bin/env bash
# Install the real backends that `pytest -m backends` runs against.
#
#   scripts/install_backends.sh                       everything
#   scripts/install_backends.sh collector jaeger      only these
#   scripts/install_backends.sh --where               print the folder and stop
#
# Parts: collector (OpenTelemetry Collector), jaeger (v2), phoenix (in a virtual environment of its
# own), versitygw (an S3 gateway), and from the system's packages chromium (headless, to look at
# Phoenix), shells (zsh and fish, in which the tests try completion), redis (for Celery), postgres and
# pgbouncer (the tests run their own) and prometheus (unpacked here and not
# installed: Debian's package would start a service).
#
# Everything lands in the folder that BURR_OTEL_BACKENDS names (default: ~/.cache/burr-otel/backends).
# A part that is there in the wanted version is left alone, so running this again costs nothing. One
# that was interrupted goes on: Go keeps the modules and packages that it has. Every ten seconds
# (BURR_OTEL_TELL_EVERY_S) a line says how far a build is.
# Needs Go >= 1.21 (it fetches the newer tool chain that a module asks for by itself) and Python >= 3.10.
set -euo pipefail

readonly COLLECTOR_VERSION=v0.159.0 # the manifest names the same version for each component
readonly JAEGER_VERSION=v1.76.0     # the Go module's number for Jaeger 2.13
readonly PHOENIX_VERSION=20.26.1
readonly VERSITYGW_VERSION=v1.8.0

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here manifest="$here/otelcol-manifest.yaml"
readonly cache="${BURR_OTEL_BACKENDS:-$HOME/.cache/burr-otel/backends}"
readonly all_parts=(collector jaeger phoenix versitygw chromium shells redis postgres pgbouncer prometheus)
readonly tell_every_s="${BURR_OTEL_TELL_EVERY_S:-10}"

say() { printf 'backends: %s\n' "$*"; }
die() {
  printf 'backends: error: %s\n' "$*" >&2
  exit 1
}

# --- how far it is ------------------------------------------------------------------------------

# Run a command that prints a line for each thing it does, count them, and now and then say how many
# there are. TOTAL may be "?"; it is the most that there can be, as what is cached is not done again.
telling() { # WHAT TOTAL COMMAND...
  local what=$1 total=$2 began=$SECONDS
  shift 2
  say "$what"
  if ! "$@" 2>&1 | tell_lines "$what" "$total" "$began"; then
    tail -n 40 "$work/log" >&2
    die "$what failed; the end of its output is above."
  fi
  say "$what: done in $((SECONDS - began)) s"
}

tell_lines() { # WHAT TOTAL BEGAN
  local line lines=0 told=$SECONDS status of=""
  [[ $2 == "?" ]] || of=" of at most $2"
  : >"$work/log"
  while true; do
    status=0
    IFS= read -r -t 5 line || status=$?
    if ((status == 0)); then
      printf '%s\n' "$line" >>"$work/log"
      ((++lines))
    elif ((status <= 128)); then # the end; more than 128: nothing came for five seconds
      return 0
    fi
    if ((SECONDS - told >= tell_every_s)); then
      say "$1: $lines$of, $((SECONDS - $3)) s"
      told=$SECONDS
    fi
  done
}

go_build() { # WHAT FOLDER PACKAGE OUTPUT FLAGS...
  local what=$1 folder=$2 package=$3 output=$4 total
  shift 4
  telling "$what: downloading modules" "?" go -C "$folder" mod download -x
  total=$(go -C "$folder" list -deps "$package" | wc -l)
  CGO_ENABLED=0 telling "$what: compiling packages" "$total" \
    go -C "$folder" build -v "$@" -o "$output" "$package"
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
  if ! is_current builder "$COLLECTOR_VERSION" "$cache/bin/builder"; then
    GOBIN="$cache/bin" telling "collector builder $COLLECTOR_VERSION: compiling packages" "?" \
      go install -v "go.opentelemetry.io/collector/cmd/builder@$COLLECTOR_VERSION"
    stamp builder "$COLLECTOR_VERSION"
  fi
  # Strict versioning compares each component with the builder's own release list, and some of the
  # pinned ones (confmap providers) are numbered apart from it.
  (cd "$work" && telling "collector $COLLECTOR_VERSION: generating its source" "?" \
    "$cache/bin/builder" --config "$manifest" --skip-strict-versioning --skip-compilation)
  go_build "collector $COLLECTOR_VERSION" "$work/collector" . "$work/collector/otelcol" \
    -trimpath -ldflags='-s -w'
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
  say "jaeger $JAEGER_VERSION: downloading its source"
  # `go install module@version` refuses a module with replace directives, so build in a copy of it.
  source=$(cd "$work" && go mod download -json "github.com/jaegertracing/jaeger@$JAEGER_VERSION" |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
  [[ -d $source ]] || die "could not download the source of jaeger $JAEGER_VERSION."
  cp -r --no-preserve=mode "$source" "$work/jaeger" # the module cache is read-only
  go_build "jaeger $JAEGER_VERSION" "$work/jaeger" ./cmd/jaeger "$work/jaeger.bin" \
    -buildvcs=false -ldflags='-s -w'
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
  rm -rf "$venv"
  "$python" -m venv "$venv" || die "$python cannot make virtual environments; on Debian install python3-venv."
  telling "phoenix $PHOENIX_VERSION with $("$python" --version): pip's steps" "?" \
    "$venv/bin/pip" install --disable-pip-version-check --progress-bar off \
    "arize-phoenix==$PHOENIX_VERSION"
  stamp phoenix "$PHOENIX_VERSION"
  say "phoenix installed: $venv/bin/phoenix"
}

install_versitygw() {
  local binary="$cache/bin/versitygw"
  if is_current versitygw "$VERSITYGW_VERSION" "$binary"; then
    say "versitygw $VERSITYGW_VERSION is there: $binary"
    return
  fi
  need_go
  GOBIN="$cache/bin" telling "versitygw $VERSITYGW_VERSION: compiling packages" "?" \
    go install -v "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW_VERSION"
  stamp versitygw "$VERSITYGW_VERSION"
  say "versitygw installed: $binary"
}

install_chromium() {
  if command -v chromium >/dev/null; then
    say "chromium is there: $(command -v chromium)"
    return
  fi
  apt_install chromium fonts-dejavu-core
  say "chromium installed: $(command -v chromium)"
}

install_shells() {
  local shell missing=()
  for shell in zsh fish; do command -v "$shell" >/dev/null || missing+=("$shell"); done
  [[ ${#missing[@]} -eq 0 ]] || apt_install "${missing[@]}"
  say "shells are there: $(command -v zsh) $(command -v fish)"
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

install_postgres() {
  if compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null; then
    say "postgres is there: $(compgen -G "/usr/lib/postgresql/*/bin/initdb")"
    return
  fi
  # As with redis, the package's own server is used by no test.
  apt_install postgresql
  say "postgres installed: $(compgen -G "/usr/lib/postgresql/*/bin/initdb")"
}

install_pgbouncer() {
  if PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null; then
    say "pgbouncer is there: $(PATH="$PATH:/usr/sbin" command -v pgbouncer)"
    return
  fi
  apt_install pgbouncer
  say "pgbouncer installed: $(PATH="$PATH:/usr/sbin" command -v pgbouncer)"
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
  local number=0
  for part in "$@"; do
    say "part $((++number)) of $#: $part"
    "install_$part"
  done
  say "folder: $cache"
}

main "$@"
