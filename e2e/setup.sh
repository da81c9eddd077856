#!/usr/bin/env bash
# Installs the Debian packages that the local cluster and the image build need, if any is missing, and checks for
# the two compilers. Silent and quick when nothing is to be done.
set -euo pipefail

# package:program that shows it is there; administrators' programs may be outside PATH.
needs=(
    buildah:buildah
    busybox-static:busybox
    conntrack:conntrack
    docker-registry:docker-registry
    e2fsprogs:mkfs.ext4
    git:git
    iproute2:tc
    iptables:iptables
    make:make
    mount:losetup
    nftables:nft
    runc:runc
    skopeo:skopeo
    util-linux:unshare
)
PATH=$PATH:/usr/sbin:/sbin

missing=()
for need in "${needs[@]}"; do
    command -v "${need#*:}" >/dev/null || missing+=("${need%%:*}")
done
# Rust crates with C parts, and the linker that Cargo calls.
command -v cc >/dev/null || missing+=(gcc libc6-dev)
# The fuzz targets' engine is written in C++.
command -v c++ >/dev/null || missing+=(g++)
# readelf checks that what ships is static.
command -v readelf >/dev/null || missing+=(binutils)
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)

if ((${#missing[@]} > 0)); then
    if ! command -v apt-get >/dev/null; then
        echo "This machine lacks ${missing[*]} (names of Debian packages) and has no apt-get: please install them." >&2
        exit 1
    fi
    as_root=()
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            echo "Installing ${missing[*]} needs root: run this as root." >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "Installing Debian packages: ${missing[*]}"

    # Packages such as docker-registry would start a service at once: a policy of exit code 101 forbids it for as
    # long as this script runs. A policy that is there already stays.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 0755 "$policy"
    fi

    log=$(mktemp)
    apt() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
            -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" </dev/null >"$log" 2>&1
    }
    # Lists may be absent or too old to be of use; asking twice costs less than failing.
    if ! apt install --no-install-recommends "${missing[@]}"; then
        echo "Updating the package lists first"
        if ! { apt update && apt install --no-install-recommends "${missing[@]}"; }; then
            tail -n 30 "$log" >&2
            echo "Installing packages failed; the end of apt-get's output is above, all of it in $log." >&2
            exit 1
        fi
    fi
    rm -f "$log"

    # The same policy holds for the next start of the machine, where systemd is in charge.
    if [[ -d /run/systemd/system && " ${missing[*]} " == *" docker-registry "* ]]; then
        "${as_root[@]}" systemctl disable --quiet docker-registry
    fi
fi

fail=0
if ! command -v cargo >/dev/null; then
    echo "Rust is missing: install rustup; it then takes the version named in rust-toolchain.toml by itself." >&2
    fail=1
fi
# From 1.21 on Go fetches the release that a module asks for by itself.
if ! command -v go >/dev/null || [[ $(go env GOVERSION) =~ ^go1\.1?[0-9](\.|$) || $(go env GOVERSION) =~ ^go1\.20 ]]; then
    echo "Go is missing or too old: install Go 1.26 or newer; it builds Kubernetes, etcd, containerd and network plugins." >&2
    fail=1
fi
exit $fail
