# Images for the demo and for trying things by hand, made here because no public registry is asked for anything.
# Sourced. Each holds the no-op program and random bytes, so that it starts, holds, and takes time to pull.

# make_image FOLDER MIB: an OCI layout in FOLDER with one image of about that size.
make_image() {
    local folder=$1 size=$2 context storage=$PWD/target/larder/storage
    context=$(mktemp -d)
    cp target/larder/bin/linux_amd64/larder-noop "$context/program"
    head -c "$((size * 1024 * 1024))" /dev/urandom >"$context/content"
    printf '%s\n' 'FROM scratch' 'COPY content /content' 'COPY program /program' \
        'ENTRYPOINT ["/program", "hold"]' >"$context/Dockerfile"
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs build --quiet --squash \
        --isolation chroot --tag larder-example:made "$context" >/dev/null
    buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs push --quiet \
        larder-example:made "oci:$folder:example" >/dev/null
    buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs rmi --force larder-example:made \
        >/dev/null
    rm -rf "$context"
}
