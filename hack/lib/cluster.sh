# Shared by hack/demo, hack/e2e and hack/bench: Larder in a local cluster. Sourced; CLUSTER names the cluster.

echo "==> Building larder-cluster"
cargo build --quiet --locked --package larder-e2e --bin larder-cluster

cluster() {
    "${CARGO_TARGET_DIR:-target}/debug/larder-cluster" "$@"
}

# kube ARGUMENTS...: the cluster's own kubectl.
kube() {
    cluster --name "$CLUSTER" kubectl "$@"
}

# install_larder: the images of target/larder/images into the cluster's registry, the manifests into the cluster.
#
# The tag is taken from what is in the images, so that no node runs an older build that it still has.
install_larder() {
    local name tag folder
    tag=build-$(cat target/larder/images/larder-*/index.json | sha256sum | cut -c 1-12)
    for name in operator agent noop; do
        cluster --name "$CLUSTER" load "target/larder/images/larder-$name" "ghcr.io/larder-dev/larder-$name:$tag"
    done
    folder=$(mktemp -d)
    hack/manifests "$folder" ghcr.io/larder-dev "$tag"
    cp hack/lib/local-registries.yaml "$folder/deploy/registries.yaml"
    kube apply --server-side --field-manager=larder-install --force-conflicts -k "$folder/deploy" >/dev/null
    rm -rf "$folder"
    kube wait --for=condition=Established --timeout=60s crd -l app.kubernetes.io/part-of=larder >/dev/null
    kube --namespace larder-system rollout status deployment/larder-operator --timeout=180s
    kube --namespace larder-agents rollout status daemonset/larder-agent --timeout=180s
}

operators_log() {
    echo "--- end of the operator's log"
    kube --namespace larder-system logs deployment/larder-operator --tail=60 || true
}

# For `trap finish EXIT`: tells what the operator said where something failed, and takes the cluster down unless KEEP=1.
finish() {
    local code=$?
    if ((code != 0)); then
        operators_log
    fi
    if [[ ${KEEP:-} == 1 ]]; then
        echo "KEEP=1: the cluster $CLUSTER stays up; larder-cluster --name $CLUSTER down ends it"
    else
        cluster --name "$CLUSTER" down || true
    fi
    exit "$code"
}
